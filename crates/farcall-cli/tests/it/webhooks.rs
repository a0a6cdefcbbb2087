//! Callbacks to URLs, as their receivers see them: signed, after the files are in place, at least once, within limits.
//!
//! Signatures are judged by the program in `docs/examples`, which shares nothing with farcall.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use farcall_crash::Point;
use serde_json::{Value, json};

use crate::rig::command::start;
use crate::rig::program::{Launch, Program, get, post_call};
use crate::rig::recorder::{Arrival, Recorder, Reply};
use crate::rig::{drop_file, response, until};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// An upstream named `api` that answers 200, or 404 below `/missing`.
fn upstream() -> std::io::Result<Recorder> {
    Recorder::start(|arrival, _| Reply::new(if arrival.path.starts_with("/missing") { 404 } else { 200 }))
}

/// A directory whose upstream `api` has these keys, and whose file `secret` holds the secret.
fn directory(upstream: &Recorder, keys: &str) -> std::io::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("secret"), format!("{SECRET}\n"))?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\", {keys} }}\n", upstream.url());
    fs::write(dir.path().join("farcall.yml"), config)?;
    Ok(dir)
}

/// Of the arrivals at a receiver, by the id of the call that is told.
fn told(receiver: &Recorder) -> BTreeMap<String, Vec<Arrival>> {
    let mut told: BTreeMap<String, Vec<Arrival>> = BTreeMap::new();
    for arrival in receiver.arrivals().iter() {
        let body: Value = serde_json::from_slice(&arrival.body).expect("an outcome is JSON");
        told.entry(body["id"].as_str().expect("it has an id").to_owned()).or_default().push(arrival.clone());
    }
    told
}

fn arrived(receiver: &Recorder, count: usize) -> Vec<Arrival> {
    let arrivals = || Some(receiver.arrivals().clone()).filter(|arrivals| arrivals.len() >= count);
    until(&format!("{count} webhooks"), arrivals)
}

/// A call once it has ended.
fn ended(dir: &Path, id: &str) -> Value {
    until(&format!("the end of {id}"), || {
        let call = get(dir, &format!("/v1/calls/{id}")).ok()?.body;
        call["finished_at"].is_string().then_some(call)
    })
}

/// What the verifier in the documentation says of each case: nothing, or why it refuses.
fn verdicts(cases: &[Value]) -> Outcome<Vec<Option<String>>> {
    const DRIVER: &str = "
import base64, json, sys
sys.path.insert(0, sys.argv[1])
from verify_webhook import verify
def judge(case):
    try:
        verify(case['secret'], case['headers'], bytes(case['body']), case['now'])
    except ValueError as refused:
        return str(refused)
print(json.dumps([judge(case) for case in json.load(sys.stdin)]))
";
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
    let mut python = Command::new("python3");
    python.args(["-B", "-c", DRIVER]).arg(examples).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().map_err(|error| format!("this test needs python3: {error}"))?;
    let input = json!(cases).to_string();
    child.stdin.take().ok_or("it has an input")?.write_all(input.as_bytes())?;
    Ok(serde_json::from_slice(&child.wait_with_output()?.stdout)?)
}

fn case(arrival: &Arrival, later_s: i64) -> Outcome<Value> {
    let headers: BTreeMap<_, _> = arrival.headers.iter().cloned().collect();
    let timestamp: i64 = headers["webhook-timestamp"].parse()?;
    Ok(json!({"secret": SECRET, "headers": headers, "body": arrival.body, "now": timestamp + later_s}))
}

fn with(case: &Value, path: &str, value: Value) -> Value {
    let mut case = case.clone();
    *case.pointer_mut(path).expect("a part of every case") = value;
    case
}

fn assert_forgeries_are_refused(arrival: &Arrival) -> Outcome {
    let genuine = case(arrival, 0)?;
    let signature = arrival.header("webhook-signature").ok_or("it is signed")?;
    let mut changed = arrival.body.clone();
    changed.push(b' ');
    let forged = [
        with(&genuine, "/secret", json!(OTHER_SECRET)),
        with(&genuine, "/body", json!(changed)),
        with(&genuine, "/headers/webhook-id", json!("call_0")),
        with(
            &genuine,
            "/headers/webhook-timestamp",
            json!(arrival.header("webhook-timestamp").map(|t| format!("{t}0"))),
        ),
        with(&genuine, "/headers/webhook-signature", json!("")),
        with(&genuine, "/headers/webhook-signature", json!("v1,")),
        with(&genuine, "/headers/webhook-signature", json!(&signature[..signature.len() - 1])),
        with(&genuine, "/headers/webhook-signature", json!(format!("{signature}="))),
        case(arrival, 301)?,
        case(arrival, -301)?,
    ];
    assert_eq!(verdicts(&[genuine, case(arrival, 299)?])?, [None, None]);
    let verdicts = verdicts(&forged)?;
    assert!(verdicts.len() == forged.len() && verdicts.iter().all(Option::is_some), "{verdicts:?}");
    Ok(())
}

/// Nowhere below a directory but in the files named.
fn assert_found_only_in(dir: &Path, needle: &str, allowed: &[&str]) -> Outcome {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)?.flatten() {
            let path = entry.path();
            let is_allowed = path.file_name().is_some_and(|name| allowed.iter().any(|allowed| name == *allowed));
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if entry.file_type()?.is_file() && !is_allowed {
                let holds = fs::read(&path)?.windows(needle.len()).any(|window| window == needle.as_bytes());
                assert!(!holds, "{} holds a secret", path.display());
            }
        }
    }
    Ok(())
}

#[test]
fn an_outcome_is_told_signed_once_its_files_are_in_place() -> Outcome {
    let (upstream, place) = (upstream()?, tempfile::tempdir()?);
    let dir = place.path().join("dir");
    let seen = dir.clone();
    let receiver = Recorder::start(move |_, _| {
        let in_place = ["responses", "requests"].iter().all(|folder| seen.join(folder).join("order.json").exists());
        Reply::new(if in_place { 200 } else { 500 })
    })?;
    let callback = format!("{{ url: \"{}/hook?from=farcall\", secret: \"${{file:secret}}\" }}", receiver.url());
    fs::rename(directory(&upstream, &format!("callback_success: {callback}"))?.keep(), &dir)?;
    let program = Program::serve(&dir)?;
    drop_file(&dir, "order.json", r#"{"upstream": "api", "end_point": "/orders", "body": {"n": 1}, "tags": ["a"]}"#)?;
    let arrival = arrived(&receiver, 1).remove(0);

    assert_eq!((arrival.method.as_str(), arrival.path.as_str()), ("POST", "/hook?from=farcall"));
    assert_eq!(arrival.header("content-type"), Some("application/json"));
    let webhook = arrival.header("webhook-id").ok_or("it has an id")?;
    assert_eq!(arrival.header("idempotency-key"), Some(webhook));
    assert_forgeries_are_refused(&arrival)?;

    let outcome: Value = serde_json::from_slice(&arrival.body)?;
    let mut call = ended(&dir, outcome["id"].as_str().ok_or("an id")?);
    call.as_object_mut().ok_or("an object")?.remove("request_headers");
    assert_eq!(outcome, call, "what the API answers");
    assert_eq!(
        (&outcome["state"], &outcome["body"], &outcome["tags"]),
        (&json!("succeeded"), &json!({"ok": true}), &json!(["a"]))
    );

    let callback = ended(&dir, webhook);
    assert_eq!(
        (&callback["source"], &callback["state"], &callback["attempts"]),
        (&json!("callback"), &json!("succeeded"), &json!(1))
    );
    assert_eq!(
        (&callback["method"], &callback["url"]),
        (&json!("POST"), &json!(format!("{}/hook?from=farcall", receiver.url())))
    );
    assert_eq!(program.terminate()?.code(), Some(0));
    assert_found_only_in(&dir, SECRET, &["secret"])
}

#[test]
fn a_calls_own_callback_comes_beside_the_configured_one_at_every_end() -> Outcome {
    let (upstream, configured, own) = (upstream()?, upstream()?, upstream()?);
    let dir = directory(&upstream, &format!("callback_fail: {{ url: \"{}\" }}", configured.url()))?;
    let program = Program::serve(dir.path())?;
    for end_point in ["/orders", "/missing"] {
        let callback = json!({"url": own.url(), "secret": SECRET});
        let call = json!({"upstream": "api", "end_point": end_point, "callback": callback});
        let answer = post_call(dir.path(), &call)?;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert!(!answer.body.to_string().contains(SECRET), "{answer:?}");
    }
    let (own, configured) = (arrived(&own, 2), arrived(&configured, 1));
    let state = |arrival: &Arrival| serde_json::from_slice::<Value>(&arrival.body).map(|body| body["state"].clone());
    let mut states = own.iter().map(state).collect::<Result<Vec<_>, _>>()?;
    states.sort_by_key(Value::to_string);
    assert_eq!(states, [json!("failed"), json!("succeeded")]);
    assert_eq!(state(&configured[0])?, json!("failed"));
    assert!(configured[0].header("webhook-id").is_some() && configured[0].header("webhook-signature").is_none());
    assert_forgeries_are_refused(&own[0])?;
    for arrival in &own {
        let id = arrival.header("webhook-id").ok_or("it has an id")?;
        assert!(!ended(dir.path(), id).to_string().contains(SECRET));
        assert!(!String::from_utf8_lossy(&arrival.body).contains(SECRET));
    }
    assert!(!program.log().contains(SECRET));
    Ok(())
}

#[test]
fn a_receiver_that_fails_is_tried_five_times_and_the_outcome_stays() -> Outcome {
    let (upstream, receiver) = (upstream()?, Recorder::start(|_, _| Reply::new(404))?);
    let keys = format!("callback_success: {{ url: \"{}\", secret: \"${{file:secret}}\" }}", receiver.url());
    let dir = directory(&upstream, &keys)?;
    let program = Program::serve(dir.path())?;
    drop_file(dir.path(), "order.json", r#"{"upstream": "api"}"#)?;
    let id = arrived(&receiver, 1)[0].header("webhook-id").ok_or("it has an id")?.to_owned();
    let callback = ended(dir.path(), &id);
    assert_eq!(
        (&callback["state"], &callback["attempts"], &callback["status"]),
        (&json!("failed"), &json!(5), &json!(404))
    );

    let arrivals = receiver.arrivals().clone();
    assert_eq!(arrivals.len(), 5);
    for (arrival, most_s) in arrivals.windows(2).zip([1, 2, 4, 8]) {
        let apart = arrival[1].at - arrival[0].at;
        assert!(
            apart <= Duration::from_secs(most_s) + Duration::from_millis(900),
            "{apart:?} after {most_s} s at most"
        );
    }
    let stamps = |arrival: &Arrival| arrival.header("webhook-timestamp").and_then(|stamp| stamp.parse::<u64>().ok());
    assert!(
        arrivals.iter().all(|arrival| arrival.header("webhook-id") == Some(&id) && arrival.body == arrivals[0].body)
    );
    assert!(arrivals.is_sorted_by_key(stamps), "each try has its own time");
    assert_eq!(
        verdicts(&arrivals.iter().map(|arrival| case(arrival, 0)).collect::<Outcome<Vec<_>>>()?)?,
        vec![None; 5]
    );
    assert_eq!(response(dir.path(), "order.json")["state"], "succeeded");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn a_webhook_that_is_to_be_signed_is_never_sent_unsigned() -> Outcome {
    let (upstream, receiver) = (upstream()?, upstream()?);
    let keys =
        format!("callback_success: {{ url: \"{}\", secret: [\"${{file:secret}}\", {OTHER_SECRET}] }}", receiver.url());
    let dir = directory(&upstream, &keys)?;
    let program = Program::serve(dir.path())?;
    fs::remove_file(dir.path().join("secret"))?;
    drop_file(dir.path(), "order.json", r#"{"upstream": "api"}"#)?;
    until("a call that waits for its secret", || {
        let calls = &program.health().ok()?["calls"];
        (calls["succeeded"] == 1 && calls["retrying"] == 1).then_some(())
    });
    assert_eq!(receiver.arrivals().len(), 0);
    fs::write(dir.path().join("secret"), SECRET)?;
    let arrival = arrived(&receiver, 1).remove(0);
    let genuine = case(&arrival, 0)?;
    let signatures = arrival.header("webhook-signature").ok_or("it is signed")?;
    assert_eq!(signatures.split(' ').count(), 2, "one for each secret: {signatures}");
    assert_eq!(verdicts(&[with(&genuine, "/secret", json!(OTHER_SECRET)), genuine])?, [None, None]);
    Ok(())
}

/// Kill -9 between the commit of an outcome and its callback, and around the callback's own steps.
#[test]
fn a_kill_after_the_outcome_loses_no_webhook_and_repeats_each_once_at_most() -> Outcome {
    const CALLS: usize = 12;
    for point in
        [Point::SettleDurable, Point::CallbackDurable, Point::FiledDurable, Point::StartDurable, Point::RequestSent]
    {
        let (upstream, receiver) = (upstream()?, upstream()?);
        let keys = format!("callback_success: {{ url: \"{}\", secret: \"${{file:secret}}\" }}", receiver.url());
        let dir = directory(&upstream, &keys)?;
        let mut program = Launch::new(dir.path()).dying_at(point, 7).spawn()?;
        for number in 0..CALLS {
            drop_file(dir.path(), format!("{number}.json"), r#"{"upstream": "api", "method": "PUT"}"#)?;
        }
        until(&format!("its death at {point:?}"), || program.ended().ok().flatten());
        let before = receiver.arrivals().len();
        let program = Program::serve(dir.path())?;
        let told = until("a webhook for each call", || Some(told(&receiver)).filter(|told| told.len() >= CALLS));
        until("the end of all", || {
            let calls = &program.health().ok()?["calls"];
            (calls["succeeded"] == 2 * CALLS).then_some(())
        });
        let most = told.values().map(Vec::len).max();
        assert!(told.len() == CALLS && most <= Some(2), "{point:?}: {before} before, {most:?} of one");
        let ids = |arrivals: &Vec<Arrival>| {
            arrivals.iter().all(|arrival| arrival.header("webhook-id") == arrivals[0].header("webhook-id"))
        };
        assert!(told.values().all(ids), "the id stays over a restart");
        assert_eq!(program.terminate()?.code(), Some(0));
    }
    Ok(())
}

#[test]
fn a_calls_own_callback_is_remembered_over_a_kill() -> Outcome {
    let (upstream, receiver) = (upstream()?, upstream()?);
    let dir = directory(&upstream, "retry: 0")?;
    let program = Program::serve(dir.path())?;
    let callback = json!({"url": receiver.url(), "secret": SECRET});
    assert_eq!(post_call(dir.path(), &json!({"upstream": "api", "delay": "1s", "callback": callback}))?.status, 202);
    program.kill()?;
    let program = Program::serve(dir.path())?;
    let arrival = arrived(&receiver, 1).remove(0);
    assert_eq!(verdicts(&[case(&arrival, 0)?])?, [None]);
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn a_receiver_that_hangs_holds_up_neither_calls_nor_other_receivers() -> Outcome {
    const CALLS: usize = 10;
    let hang = Duration::from_secs(600);
    let (upstream, hanging, prompt) =
        (upstream()?, Recorder::start(move |_, _| Reply::new(200).after(hang))?, upstream()?);
    let dir = directory(&upstream, "retry: 0")?;
    let program = Program::serve(dir.path())?;
    for receiver in [&hanging, &prompt] {
        for number in 0..CALLS {
            let callback = json!({"url": format!("{}/{number}", receiver.url())});
            assert_eq!(post_call(dir.path(), &json!({"upstream": "api", "callback": callback}))?.status, 202);
        }
    }
    arrived(&prompt, CALLS);
    arrived(&upstream, 2 * CALLS);
    arrived(&hanging, 4);
    until("every call and every webhook to the other", || {
        (program.health().ok()?["calls"]["succeeded"] == 3 * CALLS).then_some(())
    });
    assert_eq!(hanging.arrivals().len(), 4, "four at a time");
    program.kill()?;
    Ok(())
}

#[test]
fn webhooks_count_against_the_limits_of_the_upstream_their_url_belongs_to() -> Outcome {
    const CALLS: usize = 8;
    let upstream = upstream()?;
    let hook = format!("limits: [\"4/1s\"], jitter: 3s, callback_success: {{ url: \"{}/hook\" }}", upstream.url());
    let dir = directory(&upstream, &hook)?;
    let program = Program::serve(dir.path())?;
    for number in 0..CALLS {
        drop_file(dir.path(), format!("{number}.json"), r#"{"upstream": "api", "end_point": "/order"}"#)?;
    }
    let arrivals = arrived(&upstream, 2 * CALLS);
    assert_eq!(arrivals.iter().filter(|arrival| arrival.path == "/hook").count(), CALLS);
    let worst = upstream.worst_window(Duration::from_secs(1));
    assert!(worst <= 4, "{worst} requests within a second");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn a_callback_url_that_came_over_tcp_reaches_public_addresses_only() -> Outcome {
    let (upstream, receiver) = (upstream()?, upstream()?);
    let dir = directory(&upstream, "retry: 0")?;
    let args = ["serve", "--log-format", "json", "--listen", "127.0.0.1:0"].map(Path::new);
    let running = start(args.into_iter().chain([dir.path()]), [])?;
    let listens = until("the line that says where it serves", || {
        let log = running.stderr();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter_map(|event| event["listen"].as_str().map(str::to_owned)).next()
    });
    for hook in [receiver.url(), format!("{}/hook", upstream.url())] {
        let body = json!({"upstream": "api", "end_point": "/order", "callback": {"url": hook}}).to_string();
        let mut stream = TcpStream::connect(&listens)?;
        let head = "connection: close\r\ncontent-type: application/json";
        write!(
            stream,
            "POST /v1/calls HTTP/1.1\r\nhost: {listens}\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }
    until("both calls made and both webhooks refused", || {
        let calls = &get(dir.path(), "/healthz").ok()?.body["calls"];
        (calls["succeeded"] == 2 && calls["failed"] == 2).then_some(())
    });
    assert_eq!(running.stderr().matches("blocked_address").count(), 2, "{}", running.stderr());
    assert!(receiver.arrivals().is_empty() && upstream.arrivals().iter().all(|arrival| arrival.path == "/order"));
    let own = json!({"upstream": "api", "callback": {"url": receiver.url()}});
    assert_eq!(post_call(dir.path(), &own)?.status, 202);
    arrived(&receiver, 1);
    Ok(())
}
