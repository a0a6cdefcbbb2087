//! `farcall run`: executes what waits, ends by itself, and says by its exit code what came of it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::command::{Finished, Running, start};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{drop_file, pause, response, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A directory whose only upstream is `api`, with these keys besides its URL.
fn directory(upstream: &Recorder, keys: &str) -> std::io::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\", {keys} }}\n", upstream.url());
    fs::write(dir.path().join("farcall.yml"), config)?;
    Ok(dir)
}

fn drop_call(dir: &Path, name: &str) -> std::io::Result<()> {
    drop_file(dir, name, &json!({"upstream": "api", "end_point": name, "body": {}}).to_string())
}

fn run(dir: &Path) -> std::io::Result<Running> {
    start([Path::new("run"), dir], [])
}

fn rows(finished: &Finished) -> Result<Vec<Value>, serde_json::Error> {
    finished.stdout.lines().map(serde_json::from_str).collect()
}

#[test]
fn everything_that_waits_is_executed_and_summed_up() -> Outcome {
    let upstream = Recorder::start(|_, number| Reply::new(if number == 0 { 503 } else { 200 }))?;
    let dir = directory(&upstream, "retry: { max: 3, base: 10ms }, callback_success: 'touch called-$file.log'")?;
    for number in 0..20 {
        drop_call(dir.path(), &format!("{number}.json"))?;
    }
    let finished = run(dir.path())?.finish()?;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let rows = rows(&finished)?;
    assert_eq!((&rows[0]["upstream"], &rows[0]["ended"]), (&"api".into(), &json!({"succeeded": 20})));
    assert_eq!((&rows[0]["attempts"], &rows[0]["waiting"]), (&21.into(), &0.into()));
    assert_eq!((&rows[1]["upstream"], &rows[1]["ended"]), (&"callbacks".into(), &json!({"succeeded": 20})));
    for number in 0..20 {
        assert_eq!(response(dir.path(), format!("{number}.json"))["state"], "succeeded");
        assert!(dir.path().join(format!("requests/{number}.json")).exists());
        assert!(dir.path().join(format!("called-{number}.json.log")).exists());
    }
    Ok(())
}

#[test]
fn nothing_to_do_is_done_at_once() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = directory(&upstream, "retry: 0")?;
    let finished = run(dir.path())?.finish()?;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""));
    assert!(finished.stderr.starts_with("nothing waits in "), "{}", finished.stderr);
    Ok(())
}

#[test]
fn a_call_that_fails_makes_it_exit_1_and_only_once() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(404))?;
    let dir = directory(&upstream, "retry: 0")?;
    drop_call(dir.path(), "gone.json")?;
    let finished = run(dir.path())?.finish()?;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert_eq!(rows(&finished)?[0]["ended"], json!({"failed": 1}));
    assert_eq!(run(dir.path())?.finish()?.code, Some(0), "an earlier run's failure is not this one's");
    Ok(())
}

#[test]
fn a_callback_that_fails_makes_it_exit_1() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = directory(&upstream, "callback_success: /nowhere/at/all")?;
    drop_call(dir.path(), "order.json")?;
    let running = run(dir.path())?;
    until("the call's response", || dir.path().join("requests/order.json").exists().then_some(()));
    assert_eq!(response(dir.path(), "order.json")["state"], "succeeded");
    let finished = running.finish()?;
    assert_eq!(finished.code, Some(1), "{}{}", finished.stdout, finished.stderr);
    Ok(())
}

#[test]
fn a_rejected_file_makes_it_exit_1() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = directory(&upstream, "retry: 0")?;
    drop_file(dir.path(), "broken.json", "{\n  \"url\" }")?;
    let finished = run(dir.path())?.finish()?;
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("1 file rejected, see "), "{}", finished.stderr);
    assert_eq!(response(dir.path(), "broken.json")["error"]["line"], 2);
    Ok(())
}

#[test]
fn files_that_arrive_meanwhile_are_taken() -> Outcome {
    let upstream = Recorder::start(|arrival, _| {
        Reply::new(200).after(Duration::from_millis(if arrival.path.ends_with("first.json") { 700 } else { 0 }))
    })?;
    let dir = directory(&upstream, "retry: 0")?;
    drop_call(dir.path(), "first.json")?;
    let running = run(dir.path())?;
    until("the first request", || (upstream.arrivals().len() == 1).then_some(()));
    drop_call(dir.path(), "second.json")?;
    let finished = running.finish()?;
    assert_eq!(rows(&finished)?[0]["ended"], json!({"succeeded": 2}));
    Ok(())
}

#[test]
fn ctrl_c_finishes_what_is_in_flight_and_leaves_the_rest() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(500)))?;
    let dir = directory(&upstream, "concurrency: 1, retry: 0")?;
    for number in 0..4 {
        drop_call(dir.path(), &format!("{number}.json"))?;
    }
    let running = run(dir.path())?;
    until("the first request", || (!upstream.arrivals().is_empty()).then_some(()));
    until("all calls taken", || (0..4).all(|n| !dir.path().join(format!("{n}.json")).exists()).then_some(()));
    running.signal(Signal::INT)?;
    let finished = running.finish()?;
    assert_eq!(finished.code, Some(130), "{}", finished.stderr);
    assert!(finished.stderr.contains("left for later"), "{}", finished.stderr);
    let arrived = upstream.arrivals().len();
    assert!(arrived < 4, "the rest was not left: {arrived} arrived");

    assert_eq!(run(dir.path())?.finish()?.code, Some(0));
    assert_eq!(upstream.arrivals().len(), 4, "what was in flight was not repeated");
    Ok(())
}

#[test]
fn the_summary_counts_what_ended_while_it_drained() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(500)))?;
    let dir = directory(&upstream, "retry: 0")?;
    drop_call(dir.path(), "order.json")?;
    let running = run(dir.path())?;
    until("the request", || (!upstream.arrivals().is_empty()).then_some(()));
    running.signal(Signal::INT)?;
    let finished = running.finish()?;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(130), ""), "{}", finished.stdout);
    assert_eq!(rows(&finished)?[0]["ended"], json!({"succeeded": 1}));
    Ok(())
}

#[test]
fn calls_of_an_upstream_that_is_gone_are_reported_and_left_at_once() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(503))?;
    let dir = directory(&upstream, "retry: 3, wait: 1h")?;
    drop_call(dir.path(), "retried.json")?;
    let scheduled = json!({"upstream": "api", "delay": 3600}).to_string();
    drop_file(dir.path(), "scheduled.json", &scheduled)?;
    let running = run(dir.path())?;
    until("the request", || (!upstream.arrivals().is_empty()).then_some(()));
    until("both taken", || (!dir.path().join("scheduled.json").exists()).then_some(()));
    running.signal(Signal::INT)?;
    assert_eq!(running.finish()?.code, Some(130));

    fs::write(dir.path().join("farcall.yml"), "upstreams: {}\n")?;
    let finished = run(dir.path())?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains("2 calls left for later, 2 of them for a paused upstream"), "{}", finished.stderr);
    assert!(finished.stderr.contains("no longer configured upstream=api"), "{}", finished.stderr);
    Ok(())
}

#[test]
fn a_second_ctrl_c_stops_at_once() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_secs(600)))?;
    let dir = directory(&upstream, "retry: 0")?;
    drop_call(dir.path(), "slow.json")?;
    let running = run(dir.path())?;
    until("the request", || (!upstream.arrivals().is_empty()).then_some(()));
    let begun = Instant::now();
    running.signal(Signal::INT)?;
    pause(Duration::from_millis(300));
    running.signal(Signal::INT)?;
    assert_eq!(running.finish()?.code, Some(130));
    assert!(begun.elapsed() < Duration::from_secs(15), "it waited for the drain's 30 s");
    Ok(())
}
