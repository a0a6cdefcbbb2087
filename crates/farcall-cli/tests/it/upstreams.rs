//! What is set at upstreams while the program runs: measured where requests arrive, and over kill -9.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::program::{Answer, Program, get, send};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{drop_file, pause, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const SECOND: Duration = Duration::from_secs(1);

fn configure(dir: &Path, url: &str, more: &str) -> std::io::Result<()> {
    fs::write(dir.join("farcall.yml"), format!("upstreams:\n  api: {{ base_url: {url}, concurrency: 64{more} }}\n"))
}

fn patch(dir: &Path, body: &Value) -> std::io::Result<Answer> {
    send(dir, "PATCH", "/v1/upstreams/api", Some(body))
}

fn load(dir: &Path, count: u32) -> std::io::Result<()> {
    (0..count).try_for_each(|number| {
        drop_file(dir, format!("{number}.json"), &json!({"upstream": "api", "end_point": "/"}).to_string())
    })
}

#[test]
fn a_limit_lowered_by_patch_under_load_holds_from_the_answer_on_and_counts_what_was_sent() -> Outcome {
    // Answers take a while, so requests are on their way whenever the patch comes.
    let recorder = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(60)))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &recorder.url(), ", limits: [100/1s], jitter: 3s")?;
    let program = Program::serve(dir.path())?;
    load(dir.path(), 240)?;
    until("the load", || (recorder.arrivals().len() >= 130).then_some(()));
    let answer = patch(dir.path(), &json!({"limits": ["5/1s"]}))?;
    let answered = Instant::now();
    assert_eq!((answer.status, &answer.body["limits"][0]["capacity"]), (200, &json!(5)), "{}", answer.body);
    let late = || recorder.arrivals().iter().filter(|arrival| arrival.at > answered).count();
    until("several windows' worth", || (late() >= 16).then_some(()));
    let times: Vec<Instant> = recorder.arrivals().iter().map(|arrival| arrival.at).collect();
    let after: Vec<Instant> = times.iter().copied().filter(|at| *at > answered).collect();
    // Of every second that ends with an arrival after the answer, whenever it began.
    let within = |end: Instant| times.iter().filter(|at| **at <= end && end - **at < SECOND).count();
    assert!(after.iter().map(|end| within(*end)).max() <= Some(5));
    assert!(recorder.worst_window(SECOND) <= 100);

    // The program dies, and the patch goes on holding, what was sent counted.
    let before = recorder.arrivals().len();
    program.kill()?;
    let program = Program::serve(dir.path())?;
    until("more arrivals", || (recorder.arrivals().len() >= before + 8).then_some(()));
    let times: Vec<Instant> =
        recorder.arrivals().iter().map(|arrival| arrival.at).filter(|at| *at > answered).collect();
    let worst = times.iter().map(|begin| times.iter().filter(|at| **at >= *begin && **at < *begin + SECOND).count());
    assert!(worst.max() <= Some(5));
    let shop = get(dir.path(), "/v1/upstreams/api")?.body;
    assert_eq!(shop["patched"], json!(["limits"]));
    program.terminate()?;
    Ok(())
}

#[test]
fn nothing_is_sent_after_a_pause_was_answered_also_after_kill_9() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(20)))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &recorder.url(), ", limits: [1000/1s]")?;
    let program = Program::serve(dir.path())?;
    load(dir.path(), 300)?;
    until("the load", || (recorder.arrivals().len() >= 60).then_some(()));
    let answer = send(dir.path(), "POST", "/v1/upstreams/api/pause", None)?;
    let answered = Instant::now();
    assert_eq!((answer.status, &answer.body["state"]), (200, &json!("paused")), "{}", answer.body);
    let sent = recorder.arrivals().len();
    pause(SECOND);
    program.kill()?;
    let program = Program::serve(dir.path())?;
    until("the rest", || {
        let calls = program.health().ok()?["calls"].clone();
        let waiting = calls["queued"].as_u64()? + calls["retrying"].as_u64()?;
        (waiting > 0 && calls["running"] == 0).then_some(())
    });
    pause(SECOND);
    let late = recorder.arrivals().iter().filter(|arrival| arrival.at > answered).count();
    assert_eq!((late, recorder.arrivals().len()), (0, sent));
    assert_eq!(send(dir.path(), "POST", "/v1/upstreams/api/resume", None)?.status, 200);
    until("all to end", || (program.health().ok()?["calls"]["succeeded"] == 300).then_some(()));
    assert!(recorder.arrivals().len() >= 300);
    Ok(())
}

#[test]
fn a_pause_or_a_patch_waits_for_no_answers_also_where_nothing_is_limited() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200).after(Duration::from_secs(600)))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &recorder.url(), "")?;
    let _program = Program::serve(dir.path())?;
    load(dir.path(), 3)?;
    until("the requests", || (recorder.arrivals().len() == 3).then_some(()));
    let begun = Instant::now();
    assert_eq!(patch(dir.path(), &json!({"timeout": 5}))?.status, 200);
    assert_eq!(send(dir.path(), "POST", "/v1/upstreams/api/pause", None)?.status, 200);
    // Each would wait for six seconds, were it not known that what is out has left.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    Ok(())
}

#[test]
fn a_patched_key_holds_until_the_file_says_something_else_of_that_key() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), &recorder.url(), ", rate_second: 10, timeout: 20")?;
    let _program = Program::serve(dir.path())?;
    assert_eq!(patch(dir.path(), &json!({"rate_second": 3, "timeout": 7}))?.status, 200);
    let holds = |what: &str, limit: &str, timeout_ms: u64| {
        until(what, || {
            let policy = get(dir.path(), "/v1/upstreams/api").ok()?.body["policy"].clone();
            (policy["limits"] == json!([limit]) && policy["timeout_ms"] == timeout_ms).then_some(())
        });
    };
    holds("the patch", "3/1s", 7_000);
    configure(dir.path(), &recorder.url(), ", rate_second: 10, timeout: 21, retry: 1")?;
    holds("the changed key alone", "3/1s", 21_000);
    configure(dir.path(), &recorder.url(), ", rate_second: 11, timeout: 20")?;
    holds("both", "11/1s", 20_000);
    configure(dir.path(), &recorder.url(), ", rate_second: 10, timeout: 20")?;
    holds("what the file says, and no patch of old", "10/1s", 20_000);
    Ok(())
}
