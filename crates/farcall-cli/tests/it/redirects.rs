//! Redirects as upstreams see them: which request comes next, with which headers, how many, and within whose limits.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::program::{Program, get, post_call};
use crate::rig::recorder::{Arrival, Recorder, Reply};
use crate::rig::{drop_file, response, until};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn redirect(status: u16, location: impl Into<String>) -> Reply {
    Reply { headers: vec![("location", location.into())], body: String::new(), ..Reply::new(status) }
}

/// A directory with these upstreams and defaults.
fn directory(defaults: &str, upstreams: &[(&str, String)]) -> std::io::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    let upstreams: String = upstreams.iter().map(|(name, keys)| format!("  {name}: {{ {keys} }}\n")).collect();
    fs::write(dir.path().join("farcall.yml"), format!("defaults: {{ {defaults} }}\nupstreams:\n{upstreams}"))?;
    Ok(dir)
}

fn called(dir: &Path, name: &str, call: &Value) -> std::io::Result<Value> {
    drop_file(dir, name, &call.to_string())?;
    Ok(response(dir, name))
}

/// The attempts of the call that a response is about.
fn attempts(dir: &Path, response: &Value) -> std::io::Result<Vec<Value>> {
    let id = response["id"].as_str().unwrap_or_default();
    Ok(get(dir, &format!("/v1/calls/{id}/attempts"))?.body["data"].as_array().cloned().unwrap_or_default())
}

/// Method, path and body of each arrival.
fn asked(recorder: &Recorder) -> Vec<(String, String, String)> {
    let text = |arrival: &Arrival| String::from_utf8_lossy(&arrival.body).into_owned();
    recorder.arrivals().iter().map(|it| (it.method.clone(), it.path.clone(), text(it))).collect()
}

#[test]
fn each_status_says_which_request_comes_next() -> Outcome {
    let upstream = Recorder::start(|arrival, _| match arrival.path.strip_prefix("/from/").map(str::parse) {
        Some(Ok(status)) => redirect(status, "../to?q=1#part"),
        _ => Reply::new(200),
    })?;
    let dir = directory("redirects: 1", &[("api", format!("base_url: \"{}\"", upstream.url()))])?;
    let _program = Program::serve(dir.path())?;
    for (status, method, then, keeps_body) in [
        (301, "POST", "GET", false),
        (301, "PUT", "PUT", true),
        (302, "POST", "GET", false),
        (302, "GET", "GET", true),
        (303, "PUT", "GET", false),
        (303, "HEAD", "HEAD", false),
        (307, "POST", "POST", true),
        (308, "PATCH", "PATCH", true),
    ] {
        upstream.arrivals().clear();
        let headers = json!({"Content-Language": "de", "X-Kept": "yes"});
        let end_point = format!("/from/{status}");
        let call =
            json!({"upstream": "api", "method": method, "end_point": end_point, "headers": headers, "body": {"n": 1}});
        let response = called(dir.path(), &format!("{status}-{method}.json"), &call)?;
        assert_eq!((&response["state"], &response["attempts"]), (&"succeeded".into(), &2.into()), "{response}");
        let body = r#"{"n":1}"#;
        let second = (then.to_owned(), "/to?q=1".to_owned(), if keeps_body { body } else { "" }.to_owned());
        let arrivals = asked(&upstream);
        assert_eq!(arrivals[..], [(method.to_owned(), end_point, body.to_owned()), second], "{status} {method}");
        let arrival = upstream.arrivals()[1].clone();
        for name in ["content-type", "content-language"] {
            assert_eq!(arrival.header(name).is_some(), keeps_body, "{name} of {status} {method}");
        }
        assert_eq!(arrival.header("x-kept"), Some("yes"));
        let changes = ["POST", "PUT", "PATCH", "DELETE"].contains(&then);
        assert_eq!(arrival.header("idempotency-key").is_some(), changes, "{status} {method}");
        let attempts = attempts(dir.path(), &response)?;
        let told: Vec<_> =
            attempts.iter().map(|it| (&it["number"], &it["kind"], &it["outcome"], &it["status"])).collect();
        let (first, success) = (json!("first"), json!("success"));
        let (status, one, two, ok) = (json!(status), json!(1), json!(2), json!(200));
        assert_eq!(told, [(&one, &first, &success, &status), (&two, &first, &success, &ok)]);
    }
    Ok(())
}

/// Everything that carries rights, under names of every kind.
const CANARY: &str = "canary-of-home";

/// Follows its own instructions: `/go?302+URL` redirects there.
fn guide(arrival: &Arrival, _: usize) -> Reply {
    let order = arrival.path.strip_prefix("/go?").and_then(|order| order.split_once('+'));
    match order.and_then(|(status, location)| Some((status.parse().ok()?, location))) {
        Some((status, location)) => redirect(status, location),
        None => Reply::new(200),
    }
}

#[test]
fn what_is_meant_for_one_origin_goes_to_no_other() -> Outcome {
    let (home, other) = (Recorder::start(guide)?, Recorder::start(guide)?);
    let (home_url, other_url) = (home.url(), other.url());
    let by_name = home_url.replace("127.0.0.1", "localhost");
    let headers = format!(
        "Authorization: \"Bearer {CANARY}\", X-Api-Key: {CANARY}, X-Shop: {CANARY}, User-Agent: {CANARY}, X-Version: one"
    );
    let theirs = "headers: { X-Shop: canary-of-other, X-Own: canary-of-other }";
    let dir = directory(
        "redirects: 5",
        &[
            ("home", format!("base_url: \"{home_url}\", headers: {{ {headers} }}")),
            ("name", format!("base_url: \"{by_name}\", {theirs}")),
            ("other", format!("base_url: \"{other_url}\", {theirs}")),
        ],
    )?;
    let program = Program::serve(dir.path())?;
    let own = json!({"Cookie": CANARY, "X-Csrf-Token": CANARY, "Private-Token": CANARY, "Idempotency-Key": CANARY,
                     "x-SECRET-kEy": CANARY, "X-Plain": "yes", "X-Version": "two"});
    let ways = [
        "/go?307+/end".to_owned(),
        format!("/go?307+{other_url}/end"),
        format!("/go?307+{by_name}/end"),
        format!("/go?302+{other_url}/go?302+{home_url}/end"),
    ];
    for (number, way) in ways.iter().enumerate() {
        let call = json!({"upstream": "home", "end_point": way, "headers": own, "body": "order"});
        let response = called(dir.path(), &format!("{number}.json"), &call)?;
        assert_eq!(response["state"], "succeeded", "{way}: {response}");
    }
    let canaries = |arrival: &Arrival| arrival.headers.iter().filter(|(_, value)| value.contains("canary")).count();
    let (at_home, elsewhere) = (home.arrivals().clone(), other.arrivals().clone());
    // There and back again: what was left behind is not picked up any more.
    assert_eq!(at_home.iter().map(canaries).collect::<Vec<_>>(), [9, 9, 9, 9, 0, 9, 0], "{at_home:?}");
    assert_eq!(elsewhere.len(), 2);
    for arrival in elsewhere.iter().chain(at_home.iter().filter(|arrival| canaries(arrival) == 0)) {
        assert_eq!(canaries(arrival), 0, "{arrival:?}");
        let header = |name| arrival.header(name);
        assert_eq!((header("x-plain"), header("x-version"), header("x-own")), (Some("yes"), None, None), "{arrival:?}");
        assert!(header("user-agent").is_some_and(|agent| agent.starts_with("farcall/")), "{arrival:?}");
        assert!(header("traceparent").is_some(), "declared upstreams learn which call it is: {arrival:?}");
        assert_eq!(header("idempotency-key"), None);
    }
    let bodies: Vec<_> = elsewhere.iter().map(|arrival| arrival.body.clone()).collect();
    assert_eq!(bodies, [b"order".to_vec(), Vec::new()], "by 307 the body goes along, by 302 it does not");
    assert!(!program.log().contains("canary"), "{}", program.log());
    Ok(())
}

#[test]
fn a_loop_ends_with_the_last_redirect_it_may_follow() -> Outcome {
    let upstream = Recorder::start(|arrival, _| {
        let turn: u32 = arrival.path.trim_start_matches('/').parse().unwrap_or(0);
        redirect(302, format!("/{}", (turn + 1) % 50))
    })?;
    let keys = format!("base_url: \"{}\", redirects: 5", upstream.url());
    let dir = directory("retry: 3", &[("api", keys)])?;
    let _program = Program::serve(dir.path())?;
    let response = called(dir.path(), "loop.json", &json!({"upstream": "api", "end_point": "/0"}))?;
    assert_eq!((&response["state"], &response["status"]), (&"failed".into(), &302.into()), "{response}");
    assert_eq!((&response["error"]["kind"], &response["attempts"]), (&"http_status".into(), &6.into()), "{response}");
    assert_eq!(response["headers"]["location"], "/6", "the last answer is the outcome");
    assert_eq!(upstream.arrivals().len(), 6, "no retry either: 302 is none of the statuses that are retried");
    let outcomes: Vec<_> = attempts(dir.path(), &response)?.iter().map(|it| it["outcome"].clone()).collect();
    assert_eq!(outcomes, ["success", "success", "success", "success", "success", "failure"]);
    Ok(())
}

#[test]
fn what_cannot_be_followed_is_the_answer() -> Outcome {
    let inside = Recorder::start(|_, _| Reply::new(200))?;
    let to = inside.url();
    let upstream = Recorder::start(move |arrival, _| match arrival.path.as_str() {
        "/ftp" => redirect(302, "ftp://127.0.0.1/x"),
        "/file" => redirect(302, "file:///etc/passwd"),
        "/user" => redirect(302, to.replace("http://", "http://user:word@")),
        "/none" => Reply { headers: Vec::new(), ..Reply::new(302) },
        "/304" => redirect(304, &to[..]),
        _ => redirect(302, format!("{to}/{}", arrival.path)),
    })?;
    let keys = format!("base_url: \"{}\"", upstream.url());
    let dir = directory("redirects: 5, addresses: any", &[("api", keys)])?;
    let _program = Program::serve(dir.path())?;
    for path in ["/ftp", "/file", "/user", "/none", "/304"] {
        let response =
            called(dir.path(), &format!("{}.json", &path[1..]), &json!({"upstream": "api", "end_point": path}))?;
        let told = (&response["state"], &response["error"]["kind"], &response["attempts"]);
        assert_eq!(told, (&"failed".into(), &"http_status".into(), &1.into()), "{path}: {response}");
    }
    // Nobody declared where this one leads, and it lies inside: not even the user's own call goes there.
    let response = called(dir.path(), "inside.json", &json!({"upstream": "api", "end_point": "/inside"}))?;
    let told = (&response["state"], &response["error"]["kind"], &response["attempts"]);
    assert_eq!(told, (&"failed".into(), &"blocked_address".into(), &2.into()), "{response}");
    assert!(inside.arrivals().is_empty(), "{:?}", inside.arrivals());
    Ok(())
}

/// A POST that was answered with "see other" has been accepted.
#[test]
fn a_post_is_not_made_again_because_of_what_came_after_it() -> Outcome {
    let upstream = Recorder::start(|arrival, number| match (arrival.method.as_str(), number) {
        ("POST", _) => redirect(303, "/order/1"),
        (_, 0..=2) => Reply::new(503),
        _ => Reply::new(200),
    })?;
    let keys = format!("base_url: \"{}\", redirects: 2, retry: 5, wait: 0.01", upstream.url());
    let dir = directory("timeout: 30s", &[("api", keys)])?;
    let _program = Program::serve(dir.path())?;
    let call = json!({"upstream": "api", "end_point": "/orders", "body": {"n": 1}});
    let response = called(dir.path(), "order.json", &call)?;
    assert_eq!(response["state"], "succeeded", "{response}");
    let methods: Vec<_> = asked(&upstream).into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(methods, ["POST /orders", "GET /order/1", "GET /order/1", "GET /order/1"]);
    let kinds: Vec<_> = attempts(dir.path(), &response)?.iter().map(|it| it["kind"].clone()).collect();
    assert_eq!(kinds, ["first", "first", "retry", "retry"]);
    Ok(())
}

#[test]
fn a_kill_in_the_middle_of_a_chain_leaves_the_hop_unknown() -> Outcome {
    let there = Recorder::start(|_, number| {
        let reply = Reply::new(200);
        if number == 0 { reply.after(Duration::from_secs(120)) } else { reply }
    })?;
    let to = there.url();
    let home = Recorder::start(move |arrival, _| {
        redirect(if arrival.method == "POST" { 303 } else { 307 }, format!("{to}{}", arrival.path))
    })?;
    let upstreams = [
        ("home", format!("base_url: \"{}\", redirects: 2", home.url())),
        ("there", format!("base_url: \"{}\"", there.url())),
    ];
    for (method, homes) in [("POST", vec!["POST"]), ("PUT", vec!["PUT", "PUT"])] {
        home.arrivals().clear();
        let dir = directory("timeout: 300s", &upstreams)?;
        let program = Program::serve(dir.path())?;
        let seen = there.arrivals().len();
        let call = json!({"upstream": "home", "method": method, "end_point": "/x", "body": {"n": 1}});
        let id = post_call(dir.path(), &call)?.body["id"].as_str().ok_or("an id")?.to_owned();
        until("the hop", || (there.arrivals().len() > seen).then_some(()));
        program.kill()?;
        let _program = Program::serve(dir.path())?;
        let call = until("the end", || {
            let call = get(dir.path(), &format!("/v1/calls/{id}")).ok()?.body;
            call["finished_at"].is_string().then_some(call)
        });
        assert_eq!(call["state"], "succeeded", "{method}: {call}");
        let methods: Vec<_> = asked(&home).into_iter().map(|(method, _, _)| method).collect();
        assert_eq!(methods, homes, "{method}: what was accepted is not asked for again");
        let outcomes: Vec<_> = attempts(dir.path(), &call)?.iter().map(|it| it["outcome"].clone()).collect();
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == "unknown").count(), 1, "{outcomes:?}");
        // The first answer of the next round hangs again.
        there.arrivals().clear();
    }
    Ok(())
}

/// The limit is that of where the hops go, whoever sends them there, over restarts too.
#[test]
fn hops_keep_the_limit_of_where_they_go_over_kills() -> Outcome {
    const WINDOW: Duration = Duration::from_secs(2);
    const CALLS: usize = 24;
    let there = Recorder::start(|_, _| Reply::new(200))?;
    let to = there.url();
    let home = Recorder::start(move |arrival, _| redirect(307, format!("{to}{}", arrival.path)))?;
    let dir = directory(
        "redirects: 1",
        &[
            ("home", format!("base_url: \"{}\"", home.url())),
            ("there", format!("base_url: \"{}\", limits: [\"5/2s\"], strict: true", there.url())),
        ],
    )?;
    let mut program = Program::serve(dir.path())?;
    for number in 0..CALLS {
        let (name, end_point) = (format!("{number}.json"), format!("/{number}"));
        drop_file(dir.path(), name, &json!({"upstream": "home", "end_point": end_point}).to_string())?;
    }
    for seen in [3, 9, 15] {
        until("some hops", || (there.arrivals().len() >= seen).then_some(()));
        let health = get(dir.path(), "/healthz")?.body;
        assert_eq!(health["status"], "ok", "{health}");
        program.kill()?;
        program = Program::serve(dir.path())?;
    }
    for number in 0..CALLS {
        let response = response(dir.path(), format!("{number}.json"));
        assert_eq!(response["state"], "succeeded", "{response}");
    }
    let worst = there.worst_window(WINDOW);
    assert!(worst <= 5, "{worst} arrived within {WINDOW:?}");
    let mut per_call: BTreeMap<String, usize> = BTreeMap::new();
    for (_, path, _) in asked(&there) {
        *per_call.entry(path).or_default() += 1;
    }
    assert_eq!(per_call.len(), CALLS, "each arrived");
    let repeated: usize = per_call.values().map(|count| count - 1).sum();
    assert!(repeated <= 3 * 16, "{repeated} hops were repeated after three kills");
    Ok(())
}

#[test]
fn a_call_that_waits_for_a_hop_tells_why() -> Outcome {
    let there = Recorder::start(|_, _| Reply::new(200))?;
    let to = there.url();
    let home = Recorder::start(move |_, _| redirect(302, format!("{to}/there")))?;
    let dir = directory(
        "redirects: 1",
        &[
            ("home", format!("base_url: \"{}\"", home.url())),
            ("there", format!("base_url: \"{}\", limits: [\"1/1h\"]", there.url())),
        ],
    )?;
    let program = Program::serve(dir.path())?;
    let mut ids = Vec::new();
    for number in 0..2 {
        let call = json!({"upstream": "home", "end_point": format!("/{number}")});
        ids.push(post_call(dir.path(), &call)?.body["id"].as_str().ok_or("an id")?.to_owned());
    }
    let waiting = |dir: &Path| {
        let calls = ids.iter().map(|id| get(dir, &format!("/v1/calls/{id}")).map(|answer| answer.body));
        let calls: Vec<Value> = calls.flatten().collect();
        // Until when is known once the other call has arrived there.
        let waits = |call: &&Value| call["wait_reason"] == "rate_limit" && call["next_at"].is_string();
        calls.iter().find(waits).cloned()
    };
    let call = until("one that waits", || waiting(dir.path()));
    assert_eq!((&call["upstream"], &call["state"]), (&"home".into(), &"retrying".into()), "{call}");
    assert_eq!(call["attempts"], 1, "{call}");
    program.kill()?;
    let _program = Program::serve(dir.path())?;
    let again = until("the same after a restart", || waiting(dir.path()));
    assert_eq!((&again["id"], &again["attempts"]), (&call["id"], &call["attempts"]), "nothing was sent again");
    assert_eq!((home.arrivals().len(), there.arrivals().len()), (2, 1));
    Ok(())
}

/// As when it had not been tried yet: nothing that was accepted is lost over a slip in the configuration.
#[test]
fn a_call_on_its_way_waits_when_its_upstream_is_taken_out_of_the_configuration() -> Outcome {
    let there = Recorder::start(|_, _| Reply::new(200))?;
    let to = there.url();
    let home = Recorder::start(move |_, _| redirect(302, format!("{to}/there")))?;
    let ours = ("home", format!("base_url: \"{}\"", home.url()));
    let theirs = |limits: &str| ("there", format!("base_url: \"{}\", limits: [\"{limits}\"]", there.url()));
    let defaults = "redirects: 1, retry: 1, wait: 0.01";
    let dir = directory(defaults, &[ours.clone(), theirs("1/1h")])?;
    let program = Program::serve(dir.path())?;
    let configure = |upstreams: &[(&str, String)], times: usize| -> Outcome {
        fs::copy(directory(defaults, upstreams)?.path().join("farcall.yml"), dir.path().join("farcall.yml.new"))?;
        fs::rename(dir.path().join("farcall.yml.new"), dir.path().join("farcall.yml"))?;
        let applied = || program.log().matches("the changed configuration is applied").count() >= times;
        until("the changed configuration", || applied().then_some(()));
        Ok(())
    };
    let mut ids = Vec::new();
    for number in 0..2 {
        let call = json!({"upstream": "home", "end_point": format!("/{number}")});
        ids.push(post_call(dir.path(), &call)?.body["id"].as_str().ok_or("an id")?.to_owned());
    }
    let one_that = |what: &str, is_meant: &dyn Fn(&Value) -> bool| {
        until(what, || {
            let calls = ids.iter().filter_map(|id| Some(get(dir.path(), &format!("/v1/calls/{id}")).ok()?.body));
            calls.into_iter().find(is_meant)
        })
    };
    let waiting = one_that("a hop that waits", &|call| call["wait_reason"] == "rate_limit");
    configure(&[theirs("100/1s")], 1)?;
    let paused = one_that("the same, at home", &|call| call["wait_reason"] == "paused");
    assert_eq!(paused["id"], waiting["id"]);
    assert_eq!((home.arrivals().len(), there.arrivals().len()), (2, 1), "nothing is sent meanwhile");
    configure(&[ours, theirs("100/1s")], 2)?;
    one_that("its end", &|call| call["id"] == waiting["id"] && call["state"] == "succeeded");
    assert_eq!((home.arrivals().len(), there.arrivals().len()), (3, 2));
    Ok(())
}

#[test]
fn webhooks_follow_nothing() -> Outcome {
    let elsewhere = Recorder::start(|_, _| Reply::new(200))?;
    let to = elsewhere.url();
    let receiver = Recorder::start(move |_, _| redirect(307, to.clone()))?;
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = directory(
        "redirects: 5",
        &[
            (
                "api",
                format!("base_url: \"{}\", callback_success: {{ url: \"{}/hook\" }}", upstream.url(), receiver.url()),
            ),
            ("elsewhere", format!("base_url: \"{}\"", elsewhere.url())),
        ],
    )?;
    let _program = Program::serve(dir.path())?;
    called(dir.path(), "a.json", &json!({"upstream": "api", "end_point": "/"}))?;
    until("the second try of the webhook", || (receiver.arrivals().len() >= 2).then_some(()));
    assert!(elsewhere.arrivals().is_empty());
    Ok(())
}
