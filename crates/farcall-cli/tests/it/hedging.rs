//! Hedging by the real program, at an upstream with a long tail: the first success is the outcome, once; losers' connections are
//! closed; a kill with several attempts out; and nothing of it where the quota is used up.
#![expect(clippy::print_stdout, reason = "what was measured is worth seeing")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::program::{Program, get, post_call, send, send_raw};
use crate::rig::{drop_file, pause, response, rounds, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Longer than any test takes.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// What an upstream saw of one request.
#[derive(Debug, Clone, Default)]
struct Seen {
    is_answered: bool,
    /// The connection was closed before the answer.
    is_closed: bool,
}

/// An upstream that takes its time, and notices when somebody does not wait for it.
#[derive(Debug, Clone)]
struct Tail {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// How long the request of this number takes.
type Delay = dyn Fn(usize) -> Duration + Send + Sync;

impl Tail {
    fn start(delay: impl Fn(usize) -> Duration + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let tail = Self { address: listener.local_addr()?, seen: Arc::default() };
        let (serving, delay) = (tail.clone(), Arc::new(delay) as Arc<Delay>);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tail, delay) = (serving.clone(), Arc::clone(&delay));
                std::thread::spawn(move || tail.serve(stream, &*delay));
            }
        });
        Ok(tail)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    fn note(&self, number: usize, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().expect("not poisoned")[number]);
    }

    fn serve(&self, stream: TcpStream, delay: &Delay) {
        let _ = stream.set_nodelay(true);
        let Ok(mut writer) = stream.try_clone() else { return };
        let mut reader = BufReader::new(stream);
        while read_request(&mut reader).is_some() {
            let number = {
                let mut seen = self.seen.lock().expect("not poisoned");
                seen.push(Seen::default());
                seen.len() - 1
            };
            if is_closed_within(&reader, delay(number)) {
                return self.note(number, |seen| seen.is_closed = true);
            }
            let body = json!({ "number": number }).to_string();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
            self.note(number, |seen| seen.is_answered = true);
            if writer.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<()> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|&read| read > 0)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        let Some((name, value)) = line.split_once(':') else { break };
        if name == "content-length" {
            length = value.trim().parse().ok()?;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()
}

/// Whether the other side closes the connection within this time; nobody sends a second request before the answer.
fn is_closed_within(reader: &BufReader<TcpStream>, delay: Duration) -> bool {
    if delay.is_zero() || reader.get_ref().set_read_timeout(Some(delay)).is_err() {
        return false;
    }
    let read = reader.get_ref().read(&mut [0]);
    let _ = reader.get_ref().set_read_timeout(None);
    !read.is_err_and(|error| matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
}

/// A directory whose upstream `api` is this one, with these keys.
fn directory(tail: &Tail, keys: &str) -> std::io::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\", {keys} }}\n", tail.url());
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    Ok(dir)
}

fn attempts(dir: &Path, id: &str) -> Vec<(String, String)> {
    let listed = get(dir, &format!("/v1/calls/{id}/attempts")).expect("the server answers").body;
    let text = |attempt: &Value, key: &str| attempt[key].as_str().expect("a word").to_owned();
    let listed = listed["data"].as_array().expect("a list").clone();
    listed.iter().map(|attempt| (text(attempt, "kind"), text(attempt, "outcome"))).collect()
}

/// A counter of the metrics, for the upstream `api`.
fn hedges(dir: &Path, result: &str) -> u64 {
    let (_, body) = send_raw(dir, "GET /metrics", "", "").expect("the server answers");
    let name = format!("farcall_hedges_total{{upstream=\"api\",result=\"{result}\"}} ");
    let line = body.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("no {name} in {body}"));
    line.parse().expect("a number")
}

fn ended(dir: &Path, id: &str) -> Value {
    until("the end of a call", || {
        let call = get(dir, &format!("/v1/calls/{id}")).expect("the server answers").body;
        (!call["finished_at"].is_null()).then_some(call)
    })
}

#[test]
fn the_first_success_is_the_outcome_and_the_others_are_cut_off() -> Outcome {
    let tail = Tail::start(|number| if number == 1 { Duration::ZERO } else { FOR_EVER })?;
    let dir = directory(&tail, "hedge: { after: 50ms, extra: 2 }")?;
    let _program = Program::serve(dir.path())?;
    drop_file(dir.path(), "order.json", r#"{"upstream": "api", "end_point": "/a"}"#)?;
    let response = response(dir.path(), "order.json");
    assert_eq!((&response["state"], &response["body"]["number"]), (&json!("succeeded"), &json!(1)), "{response}");
    assert_eq!(response["attempts"], 3);
    until("the losers' connections to be closed", || {
        let seen = tail.seen();
        let closed = seen.iter().filter(|seen| seen.is_closed).count();
        (seen.len() == 3 && closed == 2).then_some(())
    });
    assert!(tail.seen()[1].is_answered);
    let id = response["id"].as_str().ok_or("it has an id")?.to_owned();
    let listed = until("all attempts to be settled", || {
        let listed = attempts(dir.path(), &id);
        listed.iter().all(|(_, outcome)| outcome != "running").then_some(listed)
    });
    let kinds: Vec<&str> = listed.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["first", "hedge", "hedge"]);
    let outcomes = |wanted: &str| listed.iter().filter(|(_, outcome)| outcome == wanted).count();
    assert_eq!((outcomes("success"), outcomes("cancelled")), (1, 2), "{listed:?}");
    let counts = || (hedges(dir.path(), "won"), hedges(dir.path(), "lost"), hedges(dir.path(), "suppressed"));
    until("the hedges to be counted", || (counts() == (1, 1, 0)).then_some(()));
    let names: Vec<_> = std::fs::read_dir(dir.path().join("responses"))?.collect::<Result<_, _>>()?;
    assert_eq!(names.len(), 1, "one response");
    Ok(())
}

#[test]
fn a_calls_own_hedging_holds_and_a_post_is_hedged_only_when_it_is_idempotent() -> Outcome {
    let tail = Tail::start(|number| if number % 2 == 0 { Duration::from_millis(600) } else { Duration::ZERO })?;
    let dir = directory(&tail, "concurrency: 8")?;
    let _program = Program::serve(dir.path())?;
    let hedge = json!({ "after": "50ms" });
    let post = |extra: Value| {
        let mut call = json!({ "upstream": "api", "end_point": "/a", "method": "POST", "body": {}, "hedge": hedge });
        call.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        let accepted = post_call(dir.path(), &call).expect("the server answers");
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        let id = accepted.body["id"].as_str().expect("an id").to_owned();
        (ended(dir.path(), &id), id)
    };
    let (call, id) = post(json!({ "idempotent": true }));
    assert_eq!((&call["state"], &call["body"]["number"]), (&json!("succeeded"), &json!(1)), "{call}");
    assert_eq!(call["attempts"], 2);
    assert_eq!(attempts(dir.path(), &id)[1].0, "hedge");
    let (call, id) = post(json!({}));
    assert_eq!((&call["state"], &call["attempts"]), (&json!("succeeded"), &json!(1)), "{call}");
    assert_eq!(attempts(dir.path(), &id).len(), 1);
    let (call, _) = post(json!({ "method": "GET", "body": null, "hedge": "none" }));
    assert_eq!(call["attempts"], 1);
    Ok(())
}

#[test]
fn a_kill_with_several_attempts_out_loses_nothing_and_repeats_once() -> Outcome {
    let tail = Tail::start(|number| if number < 2 { FOR_EVER } else { Duration::ZERO })?;
    let dir = directory(&tail, "hedge: { after: 50ms }, limits: [\"20/2s\"]")?;
    let program = Program::serve(dir.path())?;
    drop_file(dir.path(), "order.json", r#"{"upstream": "api", "end_point": "/a"}"#)?;
    until("two attempts to be out", || (tail.seen().len() == 2).then_some(()));
    program.kill()?;
    let _program = Program::serve(dir.path())?;
    let response = response(dir.path(), "order.json");
    assert_eq!((&response["state"], &response["body"]["number"]), (&json!("succeeded"), &json!(2)), "{response}");
    let id = response["id"].as_str().ok_or("it has an id")?;
    let listed = attempts(dir.path(), id);
    let [first, hedge, retry] = listed.as_slice() else { return Err(format!("{listed:?}").into()) };
    let is = |attempt: &(String, String), kind, outcome| (attempt.0.as_str(), attempt.1.as_str()) == (kind, outcome);
    assert!(
        is(first, "first", "unknown") && is(hedge, "hedge", "unknown") && is(retry, "retry", "success"),
        "{listed:?}"
    );
    assert_eq!(tail.seen().len(), 3, "it was repeated once");
    Ok(())
}

#[test]
fn where_the_quota_is_used_up_nothing_is_hedged() -> Outcome {
    let tail = Tail::start(|number| Duration::from_millis(if number % 3 == 0 { 400 } else { 5 }))?;
    let dir = directory(&tail, "hedge: { after: 30ms, extra: 2 }, limits: [\"20/1h\"], concurrency: 8")?;
    let _program = Program::serve(dir.path())?;
    assert_eq!(send(dir.path(), "POST", "/v1/upstreams/api/pause", None)?.status, 200);
    let mut ids = Vec::new();
    for _ in 0..40 {
        let accepted = post_call(dir.path(), &json!({ "upstream": "api", "end_point": "/a" }))?;
        ids.push(accepted.body["id"].as_str().ok_or("it has an id")?.to_owned());
    }
    assert_eq!(send(dir.path(), "POST", "/v1/upstreams/api/resume", None)?.status, 200);
    let done = until("the quota to be used up", || {
        let answered = tail.seen().iter().filter(|seen| seen.is_answered).count();
        (answered == 20).then(|| tail.seen())
    });
    assert_eq!(done.len(), 20);
    assert!(hedges(dir.path(), "suppressed") > 0, "there was something to hedge");
    assert_eq!((hedges(dir.path(), "won"), hedges(dir.path(), "lost")), (0, 0));
    let explained = get(dir.path(), &format!("/v1/calls/{}/explain", ids[39]))?.body;
    assert_eq!(explained["wait_reason"], "rate_limit", "{explained}");
    Ok(())
}

#[test]
fn why_a_call_that_takes_long_is_not_hedged_is_explained() -> Outcome {
    let tail = Tail::start(|_| FOR_EVER)?;
    let dir = directory(&tail, "hedge: { after: 20ms, extra: 2 }, limits: [\"2/1h\"]")?;
    let _program = Program::serve(dir.path())?;
    let accepted = post_call(dir.path(), &json!({ "upstream": "api", "end_point": "/a" }))?;
    let path = format!("/v1/calls/{}/explain", accepted.body["id"].as_str().ok_or("it has an id")?);
    let explained = until("a hedge that is kept back", || {
        let explained = get(dir.path(), &path).ok()?.body;
        (!explained["hedging"]["held_back"].is_null()).then_some(explained)
    });
    assert_eq!((&explained["hedging"]["made"], &explained["hedging"]["extra"]), (&json!(1), &json!(2)), "{explained}");
    assert_eq!(explained["hedging"]["held_back"], "rate_limit");
    let policy = get(dir.path(), "/v1/upstreams/api")?.body["policy"]["hedge"].clone();
    assert_eq!(policy, json!({ "after_ms": 20, "after_percentile": null, "extra": 2, "budget": null }));
    Ok(())
}

/// What one way of hedging came to.
#[derive(Debug)]
struct Measured {
    /// From acceptance to the end, in milliseconds, in order.
    times_ms: Vec<u64>,
    requests: usize,
    suppressed: u64,
}

impl Measured {
    fn percentile(&self, permille: usize) -> u64 {
        self.times_ms[(self.times_ms.len() * permille).div_ceil(1_000) - 1]
    }

    fn extra_percent(&self) -> f64 {
        let calls = self.times_ms.len();
        (self.requests - calls) as f64 * 100.0 / calls as f64
    }
}

/// Calls at an even pace to an upstream of which one answer in a hundred takes a second, and all others 5 ms.
fn measure(keys: &str, calls: u32) -> Result<Measured, Box<dyn std::error::Error>> {
    // A fixed sequence, the same for every way: one number in a hundred, spread by a multiplier without pattern.
    let is_slow = |number: usize| (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & 0xFFFF < 655;
    let tail = Tail::start(move |number| Duration::from_millis(if is_slow(number) { 1_000 } else { 5 }))?;
    let dir = directory(&tail, keys)?;
    let _program = Program::serve(dir.path())?;
    let begun = Instant::now();
    let mut ids = Vec::new();
    for number in 0..calls {
        pause((begun + Duration::from_millis(8) * number).saturating_duration_since(Instant::now()));
        let accepted = post_call(dir.path(), &json!({ "upstream": "api", "end_point": "/a" }))?;
        ids.push(accepted.body["id"].as_str().ok_or("it has an id")?.to_owned());
    }
    let mut times_ms = Vec::new();
    for id in &ids {
        let call = ended(dir.path(), id);
        assert_eq!(call["state"], "succeeded", "{call}");
        times_ms.push(call["duration_ms"].as_u64().ok_or("it has a duration")?);
    }
    times_ms.sort_unstable();
    Ok(Measured { times_ms, requests: tail.seen().len(), suppressed: hedges(dir.path(), "suppressed") })
}

/// `FARCALL_TEST_ROUNDS=6000` is the long form, whose figures are in `docs/hedging.md`.
#[test]
fn hedging_cuts_the_tail_for_a_few_percent_more_requests() -> Outcome {
    let calls = u32::try_from(rounds(500))?;
    println!("{calls} calls, one in 8 ms: p50, p99, p99.9 in ms; extra requests; hedges suppressed");
    let mut measured = Vec::new();
    for (name, hedge) in [
        ("no hedging", "none"),
        ("after: p95", "{ after: p95 }"),
        ("after: 50ms", "{ after: 50ms }"),
        ("after: 50ms, extra: 2", "{ after: 50ms, extra: 2 }"),
    ] {
        let one = measure(&format!("concurrency: 64, hedge: {hedge}"), calls)?;
        let [p50, p99, p999] = [500, 990, 999].map(|permille| one.percentile(permille));
        println!("{name:<24} {p50:>6} {p99:>6} {p999:>6} {:>6.2} % {:>6}", one.extra_percent(), one.suppressed);
        measured.push(one);
    }
    let [without, learned, fixed, two] = measured.as_slice() else { return Err("four ways".into()) };
    assert!(without.percentile(999) >= 1_000 && without.requests == without.times_ms.len(), "{without:?}");
    assert!(learned.extra_percent() <= 10.0, "the budget: {learned:?}");
    assert!(fixed.percentile(990) < 1_000 && two.percentile(990) < 1_000, "{fixed:?} {two:?}");
    Ok(())
}
