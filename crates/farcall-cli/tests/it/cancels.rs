//! Cancels at random moments of a call's life, beside load, and with kill -9 in between: what is answered is what happens.
//!
//! Calls are cancelled while they are scheduled, wait behind a limit, start, are out, and wait for a retry. The upstream
//! notes when each request arrives; an answer of `cancelled` is compared with the arrivals after it.
#![expect(clippy::print_stdout, reason = "what the cancels hit is worth knowing when a test fails")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::program::{Answer, Program, get, post_call, send, send_raw};
use crate::rig::recorder::{Arrival, Recorder, Reply};
use crate::rig::world::assert_identity;
use crate::rig::{PATIENCE, pause, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const CANCELS: u64 = 500;
const CANCELLERS: u64 = 4;
/// How long an answer takes that takes long.
const SLOW: Duration = Duration::from_millis(40);

/// A cancel that was answered.
#[derive(Debug)]
struct Cancelled {
    number: u64,
    id: String,
    answer: Answer,
    /// When the answer was there.
    at: Instant,
    /// The same cancel was sent before, and its answer did not arrive: the program was killed.
    is_repeated: bool,
}

/// Ends the threads around a test that ends, also when it fails.
struct Stopping<'s>(&'s AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A directory with two upstreams, and what its submitters know.
struct Scene {
    dir: tempfile::TempDir,
    upstream: Recorder,
    next: AtomicU64,
    answered: AtomicU64,
    stop: AtomicBool,
    cancelled: Mutex<Vec<Cancelled>>,
    /// Calls that nobody cancels, by number.
    untouched: Mutex<HashMap<u64, String>>,
    /// How the calls ended, as the streams of events told it.
    ends: Mutex<Vec<(String, String)>>,
}

impl Scene {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let failed = Mutex::default();
        let upstream = Recorder::start(move |arrival, _| reply(arrival, &failed))?;
        let dir = tempfile::tempdir()?;
        let (url, retry) = (upstream.url(), "retry: { max: 50, base: 20ms, max_delay: 60ms }");
        let config = format!(
            "upstreams:\n  api: {{ base_url: \"{url}/api\", concurrency: 8, {retry} }}\n  narrow: {{ base_url: \
             \"{url}/narrow\", limits: [\"40/1s\"], {retry} }}\n"
        );
        std::fs::write(dir.path().join("farcall.yml"), config)?;
        let (next, answered, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let (cancelled, untouched, ends) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { dir, upstream, next, answered, stop, cancelled, untouched, ends })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A call is accepted; its number and id. None when there was no answer.
    fn submit(&self) -> Option<(u64, String)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let Ok(answer) = post_call(self.path(), &call(number)) else {
            pause(Duration::from_millis(5));
            return None;
        };
        assert_eq!(answer.status, 202, "{}", answer.body);
        Some((number, answer.body["id"].as_str().expect("an accepted call has an id").to_owned()))
    }

    /// Calls come in and are cancelled after a while, over and over.
    fn cancel_some(&self, count: u64) {
        let end = Instant::now() + PATIENCE;
        for _ in 0..count {
            let (number, id) = loop {
                assert!(Instant::now() < end, "the server takes no calls");
                if let Some(submitted) = self.submit() {
                    break submitted;
                }
            };
            pause(moment(number));
            self.cancel(number, id);
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Cancels a call, again where no answer comes, and notes the answer.
    fn cancel(&self, number: u64, id: String) {
        let mut tries = 0;
        let (answer, at) = until("an answer to a cancel", || {
            tries += 1;
            let answer = send(self.path(), "POST", &format!("/v1/calls/{id}/cancel"), None).ok()?;
            Some((answer, Instant::now()))
        });
        let cancelled = Cancelled { number, id, answer, at, is_repeated: tries > 1 };
        self.cancelled.lock().expect("not poisoned").push(cancelled);
    }

    fn load(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            if let Some((number, id)) = self.submit() {
                self.untouched.lock().expect("not poisoned").insert(number, id);
            }
            pause(Duration::from_millis(2));
        }
    }

    /// Notes every end that a server tells of, of one server after the other.
    fn follow(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let _ = self.follow_one();
            pause(Duration::from_millis(2));
        }
    }

    fn follow_one(&self) -> std::io::Result<()> {
        let mut stream = UnixStream::connect(self.path().join(".farcall/farcall.sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: farcall\r\n\r\n")?;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let Some(data) = line.strip_prefix("data:") else { continue };
            let Ok(event) = serde_json::from_str::<Value>(data) else { continue };
            let (Some(id), Some(state)) = (event["id"].as_str(), event["state"].as_str()) else { continue };
            if is_end(state) {
                self.ends.lock().expect("not poisoned").push((id.to_owned(), state.to_owned()));
            }
        }
        Ok(())
    }

    /// Waits until every call has ended.
    fn drain(&self, program: &Program) {
        until("every call's end", || {
            let health = program.health().ok()?;
            assert_identity(&health);
            let live = |state: &str| health["calls"][state].as_u64().unwrap_or(u64::MAX);
            (live("queued") + live("running") + live("retrying") + live("scheduled") == 0).then_some(())
        });
    }

    /// Times of arrival, by number.
    fn arrivals(&self) -> HashMap<u64, Vec<Instant>> {
        let mut by_number: HashMap<u64, Vec<Instant>> = HashMap::new();
        for arrival in self.upstream.arrivals().iter() {
            by_number.entry(number(arrival)).or_default().push(arrival.at);
        }
        by_number
    }

    fn look(&self, id: &str) -> Result<(String, Value, Vec<Value>), Box<dyn std::error::Error>> {
        let call = get(self.path(), &format!("/v1/calls/{id}"))?.body;
        let attempts = get(self.path(), &format!("/v1/calls/{id}/attempts"))?.body;
        let state = call["state"].as_str().unwrap_or_default().to_owned();
        Ok((state, call, attempts["data"].as_array().cloned().unwrap_or_default()))
    }

    /// Compares all that is known; what the cancels came to, counted.
    fn check(&self) -> Result<BTreeMap<String, usize>, Box<dyn std::error::Error>> {
        let (arrivals, mut seen) = (self.arrivals(), BTreeMap::new());
        for cancelled in self.cancelled.lock().expect("not poisoned").iter() {
            let none = Vec::new();
            let times = arrivals.get(&cancelled.number).unwrap_or(&none);
            let (state, call, attempts) = self.look(&cancelled.id)?;
            self.check_one(cancelled, times, (&state, &call, &attempts));
            let was =
                cancelled.answer.body["attempts"].as_u64().map_or_else(String::new, |made| format!(" after {made}"));
            *seen.entry(format!("{}{was}: {state}", cancelled.answer.status)).or_default() += 1;
        }
        for (number, id) in self.untouched.lock().expect("not poisoned").iter() {
            let (state, call, _) = self.look(id)?;
            assert_eq!(state, "succeeded", "nobody cancelled it: {call}");
            assert!(arrivals.contains_key(number), "{call}");
        }
        self.check_ends()?;
        Ok(seen)
    }

    fn check_one(&self, cancelled: &Cancelled, arrivals: &[Instant], now: (&str, &Value, &[Value])) {
        let Cancelled { answer, at, .. } = cancelled;
        let (state, call, attempts) = now;
        let late = arrivals.iter().filter(|arrival| *arrival > at).count();
        let about = format!("answered {} {}, and is now {call}, {attempts:?}", answer.status, answer.body);
        assert!(is_end(state), "{about}");
        match answer.status {
            200 => {
                assert_eq!((answer.body["state"].as_str(), state), (Some("cancelled"), "cancelled"), "{about}");
                assert_eq!(late, 0, "sent after it was cancelled: {about}");
                assert_eq!(answer.body["finished_at"], call["finished_at"], "ended twice: {about}");
            }
            202 => {
                assert_eq!(answer.body["cancel_requested"], true, "{about}");
                assert_eq!(answer.body["attempts"], call["attempts"], "tried again: {about}");
                let last = attempts.last().map(|attempt| attempt["outcome"].as_str().unwrap_or_default());
                let as_the_attempt = match state {
                    "succeeded" => last == Some("success"),
                    // It turned out that nothing was sent.
                    "cancelled" => matches!(last, Some("cancelled" | "retryable")),
                    "failed" => matches!(last, Some("retryable" | "failure")),
                    _ => state == "unknown" && last == Some("unknown"),
                };
                assert!(as_the_attempt && late <= 1, "{late} arrived late: {about}");
            }
            409 => {
                assert_eq!(answer.body["code"], "already_ended", "{about}");
                assert!(cancelled.is_repeated || state == "succeeded", "{about}");
                assert_eq!(late, 0, "sent after it had ended: {about}");
            }
            _ => panic!("{about}"),
        }
        let sent = attempts.iter().filter(|attempt| attempt["outcome"] != "cancelled").count();
        assert!(arrivals.len() <= sent, "{} arrived: {about}", arrivals.len());
    }

    /// No call ended twice, none otherwise than was told.
    fn check_ends(&self) -> Outcome {
        let ends = self.ends.lock().expect("not poisoned").clone();
        let mut ended = HashSet::new();
        for (id, state) in &ends {
            assert!(
                ended.insert(id),
                "ended twice: {id}: {:?}",
                ends.iter().filter(|end| end.0 == *id).collect::<Vec<_>>()
            );
            assert_eq!(self.look(id)?.0, *state, "{id}");
        }
        assert!(!ends.is_empty());
        Ok(())
    }
}

#[test]
fn nothing_is_sent_after_an_answer_of_cancelled_and_no_call_ends_twice() -> Outcome {
    let scene = Scene::new()?;
    let program = Program::serve(scene.path())?;
    std::thread::scope(|scope| {
        let stopping = Stopping(&scene.stop);
        scope.spawn(|| scene.follow());
        scope.spawn(|| scene.load());
        let cancellers: Vec<_> =
            (0..CANCELLERS).map(|_| scope.spawn(|| scene.cancel_some(CANCELS / CANCELLERS))).collect();
        let all = cancellers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Result<Vec<_>, _>>();
        drop(stopping);
        scene.drain(&program);
        program.terminate().map(|status| assert_eq!(status.code(), Some(0)))?;
        all.map_err(|_| std::io::Error::other("a canceller failed"))
    })?;
    let _program = Program::serve(scene.path())?;
    let seen = scene.check()?;
    println!("{seen:?}, beside {} others", scene.untouched.lock().expect("not poisoned").len());
    for part in [
        "200 after 0: cancelled",
        "200 after 1: cancelled",
        "202 after 1: succeeded",
        "202 after 1: unknown",
        "409: succeeded",
    ] {
        assert!(seen.contains_key(part), "the cancels never hit {part}: {seen:?}");
    }
    Ok(())
}

#[test]
fn what_was_answered_to_a_cancel_holds_over_kill_9() -> Outcome {
    const KILLS: u64 = 5;
    let scene = Scene::new()?;
    let mut program = Program::serve(scene.path())?;
    program = std::thread::scope(|scope| {
        let stopping = Stopping(&scene.stop);
        scope.spawn(|| scene.follow());
        scope.spawn(|| scene.load());
        let cancellers: Vec<_> =
            (0..CANCELLERS).map(|_| scope.spawn(|| scene.cancel_some(CANCELS / CANCELLERS))).collect();
        for kill in 1..=KILLS {
            // While a call is out whose cancel was answered a moment ago.
            until("some answers", || {
                let is_out = |last: &Cancelled| last.answer.status == 202 && is_slow(last.number);
                let is_due = scene.answered.load(Ordering::Relaxed) >= kill * CANCELS / (KILLS + 1);
                (is_due && scene.cancelled.lock().expect("not poisoned").last().is_some_and(is_out)).then_some(())
            });
            program.kill()?;
            program = Program::serve(scene.path())?;
        }
        let all = cancellers.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Result<Vec<_>, _>>();
        drop(stopping);
        scene.drain(&program);
        program.kill()?;
        all.map_err(|_| std::io::Error::other("a canceller failed"))?;
        Program::serve(scene.path())
    })?;
    let seen = scene.check()?;
    println!("{KILLS} kills: {seen:?}, beside {} others", scene.untouched.lock().expect("not poisoned").len());
    assert!(seen.contains_key("200 after 0: cancelled"), "{seen:?}");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn an_operation_that_cancelled_all_that_fit_lets_none_of_them_arrive_later() -> Outcome {
    const CALLS: usize = 400;
    let scene = Scene::new()?;
    let program = Program::serve(scene.path())?;
    let line =
        |number| json!({"upstream": "narrow", "end_point": format!("/{number}"), "tags": ["all"]}).to_string() + "\n";
    let lines: String = (0..CALLS).map(|number| line(number * 5)).collect();
    let headers = "content-type: application/x-ndjson\r\n";
    let (_, accepted) = send_raw(scene.path(), "POST /v1/calls/bulk", headers, &lines)?;
    let ids: Vec<String> = accepted
        .lines()
        .filter_map(|line| Some(serde_json::from_str::<Value>(line).ok()?["id"].as_str()?.to_owned()))
        .collect();
    assert_eq!(ids.len(), CALLS);
    until("some to go out", || (scene.upstream.arrivals().len() >= 60).then_some(()));
    let where_all = json!({"action": "cancel", "where": {"tag": "all"}});
    let begun = send(scene.path(), "POST", "/v1/operations", Some(&where_all))?;
    assert_eq!(begun.status, 202, "{}", begun.body);
    let path = format!("/v1/operations/{}", begun.body["id"].as_str().unwrap_or_default());
    let operation = until("the operation's end", || {
        let operation = get(scene.path(), &path).ok()?.body;
        (operation["state"] != "running").then_some(operation)
    });
    let (at, arrived) = (Instant::now(), scene.upstream.arrivals().len());
    assert_eq!((&operation["state"], &operation["errors"]), (&json!("done"), &json!(0)), "{operation}");
    scene.drain(&program);
    program.kill()?;
    let _program = Program::serve(scene.path())?;
    let (arrivals, mut cancelled) = (scene.arrivals(), 0);
    for (number, id) in ids.iter().enumerate() {
        let (state, call, _) = scene.look(id)?;
        let times = arrivals.get(&(number as u64 * 5)).map_or(&[][..], Vec::as_slice);
        match state.as_str() {
            "cancelled" => assert!(times.is_empty(), "it arrived: {call}"),
            "succeeded" => assert!(times.len() == 1 && times[0] < at + Duration::from_secs(1), "{call}"),
            _ => panic!("{call}"),
        }
        cancelled += usize::from(state == "cancelled");
    }
    assert!((1..CALLS - 60 + 1).contains(&cancelled), "{cancelled} were cancelled, {arrived} had arrived: {operation}");
    Ok(())
}

/// Some wait for a time of their own, some behind a limit, some fail or are given up at first, some take long.
fn call(number: u64) -> Value {
    let upstream = if number % 5 == 1 { "narrow" } else { "api" };
    let mut call = json!({ "upstream": upstream, "end_point": format!("/{number}"), "method": "PUT", "body": {} });
    if number % 5 == 2 {
        call["delay"] = json!("15ms");
    }
    if is_broken_off(number) {
        call["timeout"] = json!("20ms");
    }
    call
}

/// One in five fails twice, or is given up twice, one takes long.
fn reply(arrival: &Arrival, failed: &Mutex<HashMap<u64, u32>>) -> Reply {
    let number = number(arrival);
    match number % 5 {
        3 => {
            let mut failed = failed.lock().expect("not poisoned");
            let times = failed.entry(number).or_default();
            *times += 1;
            match *times {
                3.. => Reply::new(200),
                _ if is_broken_off(number) => Reply::new(200).after(SLOW),
                _ => Reply::new(503),
            }
        }
        4 => Reply::new(200).after(SLOW),
        _ => Reply::new(200),
    }
}

/// Whether its answer takes long.
const fn is_slow(number: u64) -> bool {
    number % 5 == 4
}

/// Whether it gives up its first two attempts before the answer comes.
const fn is_broken_off(number: u64) -> bool {
    number % 10 == 8
}

fn number(arrival: &Arrival) -> u64 {
    let (_, number) = arrival.path.rsplit_once('/').expect("a path with a number");
    number.parse().expect("a number")
}

/// How long after its acceptance a call is cancelled: at once to 40 ms, most of them early.
fn moment(number: u64) -> Duration {
    // The finalizer of SplitMix64, which spreads neighbouring numbers.
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let fraction = u64::from((mixed >> 32) as u32 & 0xffff);
    Duration::from_micros(fraction * fraction / 0xffff * 40_000 / 0xffff)
}

fn is_end(state: &str) -> bool {
    matches!(state, "succeeded" | "failed" | "cancelled" | "expired" | "unknown" | "poisoned")
}
