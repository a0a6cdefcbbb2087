//! An upstream that fails for a while behind its breaker: probes alone, then all its calls; and what others feel of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::program::{Program, get, send_raw};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::until;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const CALLS: usize = 300;
const PROBES: usize = 10;
/// How long the breaker is open.
const OPEN: Duration = Duration::from_secs(1);
const CONCURRENCY: usize = 4;

fn submit(dir: &Path, upstream: &str, count: usize) -> Outcome {
    let line = |number| json!({"upstream": upstream, "end_point": format!("/{number}"), "method": "PUT"}).to_string();
    let lines: String = (0..count).map(|number| line(number) + "\n").collect();
    send_raw(dir, "POST /v1/calls/bulk", "content-type: application/x-ndjson\r\n", &lines)?;
    Ok(())
}

fn upstream(dir: &Path, name: &str) -> Option<Value> {
    Some(get(dir, &format!("/v1/upstreams/{name}")).ok()?.body)
}

#[test]
fn an_upstream_that_is_down_sees_probes_alone_and_then_each_call_once() -> Outcome {
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    // Back, it takes its time: 4 at once are 200 a second.
    let answer = move |_: &_, _| match back.load(Ordering::Relaxed) {
        true => Reply::new(200).after(Duration::from_millis(20)),
        false => Reply::new(503),
    };
    let down = Recorder::start(answer)?;
    let dir = tempfile::tempdir()?;
    let config = format!(
        "upstreams:\n  down: {{ base_url: \"{}\", concurrency: {CONCURRENCY}, retry: {{ max: 1000, base: 100ms, max_delay: 200ms }},\n    \
         breaker: {{ failures: 50%, calls: 10, window: 30s, open: 1s }} }}\n",
        down.url()
    );
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    let program = Program::serve(dir.path())?;
    submit(dir.path(), "down", CALLS)?;
    let is_open =
        |upstream: Value| (upstream["breaker"]["state"] == "open" && upstream["in_flight"] == 0).then_some(());
    until("the breaker to open", || is_open(upstream(dir.path(), "down")?));
    let before = down.arrivals().len();
    until("probes", || (down.arrivals().len() >= before + PROBES).then_some(()));
    is_back.store(true, Ordering::Relaxed);
    let succeeded = || program.health().ok()?["calls"]["succeeded"].as_u64();
    until("all to succeed", || succeeded().filter(|&count| count == CALLS as u64));
    let arrivals: Vec<Instant> = down.arrivals().iter().map(|arrival| arrival.at).collect();
    assert!(before < 10 + CONCURRENCY, "{before} arrived before it opened");
    let probes = &arrivals[before..before + PROBES];
    let nearest = probes.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or_default();
    // How late a busy machine may note the first of two arrivals.
    assert!(nearest > OPEN / 2, "{nearest:?} between two probes");
    let span = probes[PROBES - 1] - probes[0];
    assert!(span >= OPEN * (u32::try_from(PROBES)? - 2), "{PROBES} probes within {span:?}");
    assert!(arrivals.len() * 10 <= CALLS * 12, "{} arrivals for {CALLS} calls", arrivals.len());
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

/// How long calls to `fast` take that are made one after the other, the slowest hundredth left out.
fn p99(dir: &Path, count: usize) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut times = Vec::new();
    for number in 0..count {
        let call = json!({"upstream": "fast", "end_point": format!("/{number}")}).to_string();
        let began = Instant::now();
        let (_, answer) = send_raw(dir, "POST /v1/calls", "prefer: wait=10\r\n", &call)?;
        assert!(answer.contains("succeeded"), "{answer}");
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[count * 99 / 100 - 1])
}

#[test]
fn an_upstream_that_is_dead_or_slow_delays_no_other() -> Outcome {
    let fast = Recorder::start(|_, _| Reply::new(200))?;
    let slow = Recorder::start(|_, _| Reply::new(200).after(Duration::from_secs(30)))?;
    let dead = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let dir = tempfile::tempdir()?;
    let config = format!(
        "upstreams:\n  fast: {{ base_url: \"{}\" }}\n  slow: {{ base_url: \"{}\" }}\n  \
         dead: {{ base_url: \"http://{dead}\", breaker: {{ calls: 5, open: 100ms }}, retry: {{ max: 1000, wait: 50ms }} }}\n",
        fast.url(),
        slow.url()
    );
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    let program = Program::serve(dir.path())?;
    p99(dir.path(), 50)?;
    let alone = p99(dir.path(), 300)?;
    submit(dir.path(), "slow", 500)?;
    submit(dir.path(), "dead", 500)?;
    until("the slow one to be full", || (slow.arrivals().len() >= 16).then_some(()));
    let beside = p99(dir.path(), 300)?;
    // A busy machine alone moves it by some milliseconds; one that was held up would wait for seconds.
    assert!(beside <= alone.mul_f64(1.2) + Duration::from_millis(100), "{beside:?} beside them, {alone:?} alone");
    program.kill()?;
    Ok(())
}
