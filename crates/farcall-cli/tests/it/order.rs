//! In which order calls go out, and when: fairness between tenants, priorities, `delay`, `not_before` and `deadline`,
//! all of it over HTTP, seen where requests arrive.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use farcall_core::time::Timestamp;
use farcall_engine::outcome::rfc3339;
use serde_json::{Value, json};

use crate::rig::program::{Program, get, post_call, send, send_raw};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::until;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Sent one after the other, so that the order of arrival is the order of grants.
fn scene(more: &str) -> Result<(tempfile::TempDir, Recorder), Box<dyn std::error::Error>> {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(1)))?;
    let dir = tempfile::tempdir()?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\", {more} }}\n", upstream.url());
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    Ok((dir, upstream))
}

fn accepted(dir: &Path, call: &Value) -> Result<String, Box<dyn std::error::Error>> {
    let answer = post_call(dir, call)?;
    assert_eq!(answer.status, 202, "{}", answer.body);
    Ok(answer.body["id"].as_str().ok_or("an id")?.to_owned())
}

fn steer(dir: &Path, action: &str) -> Outcome {
    let answer = send(dir, "POST", &format!("/v1/upstreams/api/{action}"), None)?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    Ok(())
}

/// A thousand calls of one tenant, in one bulk request.
fn a_thousand_of(dir: &Path, tenant: &str) -> Outcome {
    let line = json!({ "upstream": "api", "end_point": format!("/{tenant}"), "tenant": tenant }).to_string() + "\n";
    let (_, answer) =
        send_raw(dir, "POST /v1/calls/bulk", "content-type: application/x-ndjson\r\n", &line.repeat(1_000))?;
    assert_eq!(answer.matches(r#"{"id":"#).count(), 1_000, "{answer}");
    Ok(())
}

fn paths(upstream: &Recorder) -> Vec<String> {
    upstream.arrivals().iter().map(|arrival| arrival.path.clone()).collect()
}

fn state_once_ended(dir: &Path, id: &str) -> Value {
    until("the call's end", || {
        let call = get(dir, &format!("/v1/calls/{id}")).ok()?.body;
        (!call["finished_at"].is_null()).then(|| call["state"].clone())
    })
}

#[test]
fn a_thousand_waiting_calls_of_one_tenant_delay_anothers_single_call_by_ten_grants_at_most() -> Outcome {
    let (dir, upstream) = scene("concurrency: 1")?;
    let program = Program::serve(dir.path())?;
    steer(dir.path(), "pause")?;
    a_thousand_of(dir.path(), "large")?;
    accepted(dir.path(), &json!({"upstream": "api", "end_point": "/small", "tenant": "small"}))?;
    accepted(dir.path(), &json!({"upstream": "api", "end_point": "/nobody"}))?;
    steer(dir.path(), "resume")?;
    // Another comes while the thousand are under way.
    until("some of the load", || (upstream.arrivals().len() >= 200).then_some(()));
    let late = accepted(dir.path(), &json!({"upstream": "api", "end_point": "/late", "tenant": "late"}))?;
    let before = upstream.arrivals().len();
    assert_eq!(state_once_ended(dir.path(), &late), "succeeded");
    until("everything's end", || (program.health().ok()?["calls"]["succeeded"] == 1_003).then_some(()));
    let paths = paths(&upstream);
    let place = |path: &str| paths.iter().position(|own| own == path).ok_or("it arrived");
    assert!(place("/small")? <= 10 && place("/nobody")? <= 10, "{} {}", place("/small")?, place("/nobody")?);
    assert!(place("/late")? <= before + 10, "{} after {before}", place("/late")?);
    assert!(paths.len() == 1_003 && before < 900, "{before} of {} were out", paths.len());
    Ok(())
}

#[test]
fn higher_priorities_go_first_and_older_calls_before_younger_ones() -> Outcome {
    let (dir, upstream) = scene("concurrency: 1")?;
    let _program = Program::serve(dir.path())?;
    steer(dir.path(), "pause")?;
    for (number, priority) in [5, 3, 1, 4, 2, 5, 3, 1, 4, 2].into_iter().enumerate() {
        accepted(
            dir.path(),
            &json!({"upstream": "api", "end_point": format!("/{priority}-{number}"), "priority": priority}),
        )?;
    }
    accepted(dir.path(), &json!({"upstream": "api", "end_point": "/3-default"}))?;
    steer(dir.path(), "resume")?;
    until("all to arrive", || (upstream.arrivals().len() == 11).then_some(()));
    let expected = ["/1-2", "/1-7", "/2-4", "/2-9", "/3-1", "/3-6", "/3-default", "/4-3", "/4-8", "/5-0", "/5-5"];
    assert_eq!(paths(&upstream), expected);
    Ok(())
}

#[test]
fn a_call_arrives_after_its_delay_and_not_before_its_time_also_over_kill_9() -> Outcome {
    let (dir, upstream) = scene("concurrency: 4")?;
    let program = Program::serve(dir.path())?;
    let began = Instant::now();
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let not_before = rfc3339(Timestamp::from_micros(i64::try_from(wall.as_micros())? + 900_000));
    let times = [
        ("/delay", json!({"delay": "700ms"}), 700),
        ("/seconds", json!({"delay": 0.5}), 500),
        ("/not-before", json!({"not_before": not_before}), 899),
        ("/past", json!({"not_before": "2020-01-01T00:00:00Z"}), 0),
    ];
    for (path, when, _) in &times {
        let mut call = json!({"upstream": "api", "end_point": path});
        call.as_object_mut().ok_or("an object")?.append(&mut when.as_object().ok_or("an object")?.clone());
        accepted(dir.path(), &call)?;
    }
    program.kill()?;
    let program = Program::serve(dir.path())?;
    until("all to end", || (program.health().ok()?["calls"]["succeeded"] == 4).then_some(()));
    for (path, _, after) in times {
        let arrivals = upstream.arrivals();
        let waited: Vec<_> = arrivals.iter().filter(|own| own.path == path).map(|own| own.at - began).collect();
        assert!(waited.first() >= Some(&Duration::from_millis(after)), "{path} came early: {waited:?}");
    }
    Ok(())
}

#[test]
fn nothing_arrives_after_a_deadline_and_what_is_out_is_given_up_then() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_secs(20)))?;
    let dir = tempfile::tempdir()?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\" }}\n", upstream.url());
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    let program = Program::serve(dir.path())?;
    // One is out when its deadline passes, one is held up, one would start later.
    let out = json!({"upstream": "api", "end_point": "/out", "deadline": "400ms"});
    let began = Instant::now();
    let out = accepted(dir.path(), &out)?;
    until("the first", || (upstream.arrivals().len() == 1).then_some(()));
    steer(dir.path(), "pause")?;
    let held_up = accepted(dir.path(), &json!({"upstream": "api", "end_point": "/held-up", "deadline": "200ms"}))?;
    for id in [&out, &held_up] {
        assert_eq!(state_once_ended(dir.path(), id), "expired");
    }
    assert!(began.elapsed() < Duration::from_secs(15), "it was not given up: {:?}", began.elapsed());
    steer(dir.path(), "resume")?;
    let next = accepted(dir.path(), &json!({"upstream": "api", "end_point": "/next", "deadline": "3s"}))?;
    until("the next", || (upstream.arrivals().len() == 2).then_some(()));
    assert_eq!(paths(&upstream), ["/out", "/next"]);
    assert_eq!(get(dir.path(), &format!("/v1/calls/{held_up}"))?.body["attempts"], 0);
    assert_eq!(state_once_ended(dir.path(), &next), "expired");
    let health = program.health()?;
    assert_eq!(health["calls"]["expired"], 3, "{health}");
    Ok(())
}
