//! Kill -9 at random moments, start again, and nothing is lost: the checker of the promises, on the real binary.
//!
//! Calls come in by file and by API while the program is killed again and again. What the upstream saw, what the
//! submitter was told and what the store says must agree.
#![expect(clippy::print_stdout, reason = "how much was in flight is worth knowing when a test fails")]

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::program::{Program, get, post_call};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{drop_file, pause, response, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const KILLS: u32 = 20;
const CONCURRENCY: usize = 8;

/// What the submitter knows.
#[derive(Debug, Default)]
struct Submitted {
    next: AtomicU64,
    /// Numbers by the id they were acknowledged under.
    acknowledged: Mutex<HashMap<String, u64>>,
    files: Mutex<Vec<u64>>,
}

#[derive(Debug)]
struct World {
    dir: tempfile::TempDir,
    upstream: Recorder,
    submitted: Arc<Submitted>,
    idempotent: bool,
}

impl World {
    fn new(idempotent: bool) -> Result<Self, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let upstream = Recorder::start(|_, number| {
            let reply = Reply::new(if number % 7 == 3 { 503 } else { 200 });
            reply.after(Duration::from_millis(u64::try_from(number).unwrap_or(0) % 11))
        })?;
        let config = format!(
            "upstreams:\n  api: {{ base_url: \"{}\", concurrency: {CONCURRENCY}, idempotent: {idempotent},\n    \
             retry: {{ max: 50, base: 20ms, max_delay: 100ms }} }}\n",
            upstream.url()
        );
        std::fs::write(dir.path().join("farcall.yml"), config)?;
        Ok(Self { dir, upstream, submitted: Arc::default(), idempotent })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the program, submits by both ways, kills it at some moment.
    fn round(&self, life: Duration) -> Outcome {
        let program = Program::serve(self.path())?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| self.submit_calls(&stop));
            scope.spawn(|| self.submit_files(&stop));
            pause(life);
            let killed = program.kill();
            stop.store(true, Ordering::Relaxed);
            killed
        })?;
        Ok(())
    }

    fn submit_calls(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let number = self.submitted.next.fetch_add(1, Ordering::Relaxed);
            let call = json!({ "upstream": "api", "end_point": "/call", "body": { "n": number } });
            let Ok(answer) = post_call(self.path(), &call) else { continue };
            assert_eq!(answer.status, 202, "{answer:?}");
            let id = answer.body["id"].as_str().expect("an accepted call has an id").to_owned();
            self.submitted.acknowledged.lock().expect("not poisoned").insert(id, number);
        }
    }

    fn submit_files(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let number = self.submitted.next.fetch_add(1, Ordering::Relaxed);
            let call = json!({ "upstream": "api", "end_point": "/file", "body": { "n": number } });
            drop_file(self.path(), format!("{number}.json"), &call.to_string()).expect("the directory is ours");
            self.submitted.files.lock().expect("not poisoned").push(number);
            pause(Duration::from_millis(2));
        }
    }

    /// Lets everything end, undisturbed.
    fn heal(&self) -> Outcome {
        let program = Program::serve(self.path())?;
        let files = self.submitted.files.lock().expect("not poisoned").clone();
        until("every file's response", || {
            let missing = files.iter().any(|number| !self.path().join(format!("requests/{number}.json")).exists());
            (!missing).then_some(())
        });
        until("every call's end", || {
            let health = program.health().ok()?;
            assert_identity(&health);
            let live = |state: &str| health["calls"][state].as_u64().unwrap_or(u64::MAX);
            (live("queued") + live("running") + live("retrying") + live("scheduled") == 0).then_some(())
        });
        self.check_calls()?;
        self.check_files()?;
        self.check_repeats()?;
        assert_eq!(program.terminate()?.code(), Some(0));
        Ok(())
    }

    /// Nothing acknowledged is lost, and what succeeded has arrived.
    fn check_calls(&self) -> Outcome {
        let arrived: HashSet<u64> = self.upstream.arrivals().iter().map(|arrival| number(&arrival.body)).collect();
        for (id, &number) in self.submitted.acknowledged.lock().expect("not poisoned").iter() {
            let call = get(self.path(), &format!("/v1/calls/{id}"))?;
            assert_eq!(call.status, 200, "lost: {id}");
            let state = call.body["state"].as_str().unwrap_or_default().to_owned();
            let ends: &[&str] = if self.idempotent { &["succeeded"] } else { &["succeeded", "unknown"] };
            assert!(ends.contains(&state.as_str()), "{id} ended {state}: {}", call.body);
            assert!(state != "succeeded" || arrived.contains(&number), "{id} succeeded and never arrived");
        }
        Ok(())
    }

    /// Every file has one response file and its request file, whole, and none is left.
    fn check_files(&self) -> Outcome {
        for number in self.submitted.files.lock().expect("not poisoned").iter() {
            let name = format!("{number}.json");
            assert!(!self.path().join(&name).exists(), "{name} is still in the inbox");
            let response: Value = serde_json::from_slice(&std::fs::read(self.path().join("responses").join(&name))?)?;
            assert!(["succeeded", "unknown"].contains(&response["state"].as_str().unwrap_or("none")), "{response}");
            let request: Value = serde_json::from_slice(&std::fs::read(self.path().join("requests").join(&name))?)?;
            assert_eq!(request["body"]["n"], *number);
        }
        let answered = std::fs::read_dir(self.path().join("responses"))?.count();
        assert_eq!(answered, self.submitted.files.lock().expect("not poisoned").len(), "one response per file");
        Ok(())
    }

    /// Repeats are no more than were in flight at the kills; each left a stored attempt whose outcome is unknown.
    fn check_repeats(&self) -> Outcome {
        let mut arrivals: HashMap<String, usize> = HashMap::new();
        for arrival in self.upstream.arrivals().iter() {
            assert!(number(&arrival.body) < self.submitted.next.load(Ordering::Relaxed), "a phantom: {arrival:?}");
            let key = arrival.header("idempotency-key").expect("a POST carries its call's id").to_owned();
            *arrivals.entry(key).or_default() += 1;
        }
        let mut unknown = 0;
        for (id, &count) in &arrivals {
            let answer = get(self.path(), &format!("/v1/calls/{id}/attempts"))?;
            let attempts = answer.body["data"].as_array().cloned().unwrap_or_default();
            assert!(count <= attempts.len(), "unrecorded: {id} arrived {count} times, {} attempts", attempts.len());
            let outcomes: Vec<_> = attempts.iter().filter_map(|attempt| attempt["outcome"].as_str()).collect();
            let of_this = outcomes.iter().filter(|&&outcome| outcome == "unknown").count();
            let explained = outcomes.len() - of_this;
            assert!(count <= explained + of_this, "{id}: {outcomes:?}");
            if !self.idempotent {
                assert!(
                    of_this <= 1 && outcomes.last() == Some(&"unknown") || of_this == 0,
                    "repeated: {id} {outcomes:?}"
                );
            }
            unknown += of_this;
        }
        let bound = usize::try_from(KILLS)? * CONCURRENCY;
        let accepted = self.submitted.acknowledged.lock().expect("not poisoned").len();
        let files = self.submitted.files.lock().expect("not poisoned").len();
        let arrived: usize = arrivals.values().sum();
        println!("{accepted} calls, {files} files, {arrived} arrivals, {unknown} attempts unknown after {KILLS} kills");
        assert!(accepted > 0 && files > 0 && unknown > 0, "the kills hit nothing");
        assert!(unknown <= bound, "{unknown} unknown attempts, {bound} could be in flight at the kills");
        Ok(())
    }
}

fn number(body: &[u8]) -> u64 {
    let body: Value = serde_json::from_slice(body).expect("bodies arrive whole");
    body["n"].as_u64().expect("every body has its number")
}

fn assert_identity(health: &Value) {
    let sum: u64 = health["calls"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    let total = health["pruned"].as_u64().unwrap_or(0) + sum;
    assert_eq!(health["accepted"].as_u64(), Some(total), "{health}");
}

fn survive_kills(idempotent: bool) -> Outcome {
    let world = World::new(idempotent)?;
    for kill in 0..KILLS {
        // Spread over start-up, load and filing; the moment itself is the machine's.
        world.round(Duration::from_millis(10 + u64::from(kill * 37 % 200)))?;
    }
    world.heal()
}

#[test]
fn idempotent_calls_survive_kills_and_repeat_at_most_what_was_in_flight() -> Outcome {
    survive_kills(true)
}

#[test]
fn calls_that_must_not_be_repeated_end_unknown_and_are_not_repeated() -> Outcome {
    survive_kills(false)
}

#[test]
fn an_upstream_that_asked_to_wait_is_left_alone_over_a_kill() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Recorder::start(|_, number| match number {
        0 => {
            let mut reply = Reply::new(429);
            reply.headers.push(("retry-after", "4".to_owned()));
            reply
        }
        _ => Reply::new(200),
    })?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\", retry: 0 }}\n", upstream.url());
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    let call = r#"{"upstream": "api", "end_point": "/x"}"#;
    let program = Program::serve(dir.path())?;
    drop_file(dir.path(), "first.json", call)?;
    assert_eq!(response(dir.path(), "first.json")["status"], 429, "without retries the answer is the answer");
    program.kill()?;
    let program = Program::serve(dir.path())?;
    drop_file(dir.path(), "second.json", call)?;
    assert_eq!(response(dir.path(), "second.json")["state"], "succeeded");
    let arrivals = upstream.arrivals();
    assert!(arrivals[1].at - arrivals[0].at >= Duration::from_millis(3_900), "{:?}", arrivals[1].at - arrivals[0].at);
    drop(program);
    Ok(())
}

#[test]
fn a_restart_with_many_waiting_calls_is_quick() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\", rate_day: 1 }}\n", upstream.url());
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    for number in 0..2_000 {
        drop_file(dir.path(), format!("{number}.json"), r#"{"upstream": "api", "end_point": "/x"}"#)?;
    }
    let program = Program::serve(dir.path())?;
    until("all files taken", || (program.health().ok()?["accepted"].as_u64()? == 2_000).then_some(()));
    program.kill()?;
    let began = std::time::Instant::now();
    let program = Program::serve(dir.path())?;
    assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
    assert_eq!(program.health()?["accepted"], 2_000);
    assert_eq!(upstream.arrivals().len(), 1, "the one permit of the day was used before the kill");
    Ok(())
}
