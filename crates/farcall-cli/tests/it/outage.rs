//! An upstream that is down: its calls wait and are made when it is back, each once and within its limits, and nobody else
//! notices.
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::program::{Program, get, send_raw};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::until;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const CALLS: usize = 1_000;
/// More than the attempts of one moment, so that the limit is what holds back.
const RATE: usize = 200;
const SECOND: Duration = Duration::from_secs(1);
/// What the calls of an outage may add to the memory of the program, in KiB.
const GROWTH_KIB_MAX: u64 = 32 << 10;

/// Calls to one upstream; their ids.
fn submit(dir: &Path, upstream: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let line = |number| json!({"upstream": upstream, "end_point": format!("/{number}"), "method": "PUT"}).to_string();
    let lines: String = (0..CALLS).map(|number| line(number) + "\n").collect();
    let headers = "content-type: application/x-ndjson\r\n";
    let (_, answers) = send_raw(dir, "POST /v1/calls/bulk", headers, &lines)?;
    let id = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["id"].as_str()?.to_owned());
    let ids: Vec<String> = answers.lines().filter_map(id).collect();
    assert_eq!(ids.len(), CALLS, "{answers}");
    Ok(ids)
}

fn succeeded(program: &Program) -> Option<u64> {
    program.health().ok()?["calls"]["succeeded"].as_u64()
}

#[test]
fn calls_of_an_upstream_that_is_down_wait_and_each_is_made_once_when_it_is_back() -> Outcome {
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let down = Recorder::start(move |_, _| Reply::new(if back.load(Ordering::Relaxed) { 200 } else { 503 }))?;
    let other = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    // How late a busy machine may note an arrival.
    let config = format!(
        "upstreams:\n  down: {{ base_url: \"{}\", limits: [{RATE}/1s], jitter: 3s, concurrency: 64,\n    retry: {{ max: 1000, \
         base: 500ms, max_delay: 1s }} }}\n  other: {{ base_url: \"{}\" }}\n",
        down.url(),
        other.url()
    );
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    let program = Program::serve(dir.path())?;
    let ids = submit(dir.path(), "down")?;
    until("every call is tried", || (down.arrivals().len() >= CALLS).then_some(()));
    let before = program.private_kib();
    // Nobody else notices, however long it lasts.
    submit(dir.path(), "other")?;
    until("the calls of another", || succeeded(&program).filter(|count| *count == CALLS as u64));
    until("every call is tried again", || (down.arrivals().len() >= 3 * CALLS).then_some(()));
    let grown = program.private_kib().saturating_sub(before);
    program.kill()?;
    let program = Program::serve(dir.path())?;
    is_back.store(true, Ordering::Relaxed);
    until("all to end", || succeeded(&program).filter(|count| *count == 2 * CALLS as u64));
    let mut made = 0;
    for id in &ids {
        let attempts = get(dir.path(), &format!("/v1/calls/{id}/attempts"))?.body;
        let attempts = attempts["data"].as_array().ok_or("no attempts")?.clone();
        let with = |outcome: &str| attempts.iter().filter(|attempt| attempt["outcome"] == outcome).count();
        assert_eq!(with("success"), 1, "{attempts:?}");
        made += attempts.len();
    }
    // One that was begun when the program died need not have left.
    assert!(made >= down.arrivals().len(), "every arrival is an attempt on record");
    let worst = down.worst_window(SECOND);
    assert!(worst <= RATE, "{worst} arrivals within a second");
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}
