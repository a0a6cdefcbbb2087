//! Stopping under load, panics in the middle of things, and a second engine that wants the same directory.
//!
//! What waits is handed back untouched, what is out ends by its policy, and a panic of ours takes nobody with it.
#![expect(clippy::print_stdout, reason = "what each panic came to is worth knowing when a test fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use farcall_crash::Point;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::checker::{assert_kept, drain};
use crate::rig::command::farcall;
use crate::rig::program::{Launch, Program, get, post_call};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::world::World;
use crate::rig::{drop_file, response, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const IN_FLIGHT: usize = 50;
const WAITING: usize = 200;
const DRAIN: Duration = Duration::from_secs(2);

/// Calls whose answers take long, as many as may be out at once, and others that wait behind them.
struct Crowd {
    dir: tempfile::TempDir,
    upstream: Recorder,
    /// Answers come at once.
    is_fast: Arc<AtomicBool>,
    ids: Vec<String>,
}

impl Crowd {
    fn gather() -> Result<(Self, Program), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let is_fast = Arc::new(AtomicBool::new(false));
        let fast = Arc::clone(&is_fast);
        let upstream = Recorder::start(move |_, _| {
            let slow = !fast.load(Ordering::Relaxed);
            Reply::new(200).after(if slow { Duration::from_secs(10) } else { Duration::ZERO })
        })?;
        let config = format!(
            "server: {{ drain_timeout: {}s }}\nupstreams:\n  api: {{ base_url: \"{}\", concurrency: {IN_FLIGHT} }}\n",
            DRAIN.as_secs(),
            upstream.url()
        );
        std::fs::write(dir.path().join("farcall.yml"), config)?;
        let program = Program::serve(dir.path())?;
        let mut ids = Vec::new();
        for number in 0..IN_FLIGHT + WAITING {
            let method = if number % 2 == 0 { "PUT" } else { "POST" };
            let call = json!({ "upstream": "api", "end_point": "/x", "method": method, "body": { "n": number } });
            let answer = post_call(dir.path(), &call)?;
            ids.push(answer.body["id"].as_str().ok_or("an accepted call has an id")?.to_owned());
        }
        until("all that may be out are", || (upstream.arrivals().len() == IN_FLIGHT).then_some(()));
        Ok((Self { dir, upstream, is_fast, ids }, program))
    }

    fn calls(&self) -> std::io::Result<Vec<Value>> {
        self.ids.iter().map(|id| Ok(get(self.dir.path(), &format!("/v1/calls/{id}"))?.body)).collect()
    }

    /// The next engine makes all that waited, each for the first time.
    fn end(&self) -> Outcome {
        self.is_fast.store(true, Ordering::Relaxed);
        let program = Program::serve(self.dir.path())?;
        until("every call's end", || {
            let calls = program.health().ok()?["calls"].clone();
            let live = |state: &str| calls[state].as_u64().unwrap_or(1);
            (live("queued") + live("running") + live("retrying") == 0).then_some(())
        });
        for (number, call) in self.calls()?.into_iter().enumerate() {
            let was_out = number < IN_FLIGHT;
            let expected = match (was_out, number % 2 == 0) {
                // What may be repeated was, what may not be ended unknown.
                (true, true) => ("succeeded", 2),
                (true, false) => ("unknown", 1),
                (false, _) => ("succeeded", 1),
            };
            let found = (call["state"].as_str().unwrap_or_default(), call["attempts"].as_u64().unwrap_or(0));
            assert_eq!(found, expected, "call {number}: {call}");
        }
        assert_eq!(program.terminate()?.code(), Some(0));
        Ok(())
    }
}

#[test]
fn sigterm_ends_within_the_drain_and_hands_back_what_waits_untouched() -> Outcome {
    let (crowd, program) = Crowd::gather()?;
    let begun = Instant::now();
    assert_eq!(program.terminate()?.code(), Some(0));
    let took = begun.elapsed();
    assert!(took >= DRAIN && took < DRAIN + Duration::from_secs(2), "it took {took:?}");
    assert_eq!(crowd.upstream.arrivals().len(), IN_FLIGHT, "nothing new was sent");
    crowd.end()
}

#[test]
fn sigterm_and_a_kill_one_second_later_lose_nothing() -> Outcome {
    let (crowd, program) = Crowd::gather()?;
    program.signal(Signal::TERM)?;
    crate::rig::pause(Duration::from_secs(1));
    program.kill()?;
    assert_eq!(crowd.upstream.arrivals().len(), IN_FLIGHT, "nothing new was sent");
    crowd.end()
}

#[test]
fn a_panic_in_one_attempt_takes_no_other_with_it() -> Outcome {
    for point in [Point::AttemptBegun, Point::FirstByteSent, Point::FirstByteReceived, Point::CallbackEnded] {
        let world = World::new()?;
        let program = world.launch().panicking_at(point, 5).serve()?;
        world.load_for(Duration::from_millis(400));
        // One attempt's outcome is in doubt.
        world.note_death();
        drain(&world, &program);
        assert!(program.log().contains("sprang"), "{point:?} was not reached");
        println!("{}: {:?}", point.name(), assert_kept(&world));
        assert_eq!(program.terminate()?.code(), Some(0));
    }
    Ok(())
}

#[test]
fn a_second_engine_is_refused_at_once_and_writes_nothing() -> Outcome {
    let world = World::new()?;
    let program = world.launch().serve()?;
    world.load_for(Duration::from_millis(200));
    drain(&world, &program);
    let before = contents(world.dir())?;
    for command in ["serve", "run"] {
        let begun = Instant::now();
        let second = farcall([Path::new(command), world.dir()])?;
        assert!(begun.elapsed() < Duration::from_secs(1), "{command} took {:?}", begun.elapsed());
        assert_eq!(second.code, Some(7), "{command}: {}", second.stderr);
        assert!(second.stderr.contains("in use by another farcall"), "{}", second.stderr);
    }
    assert_eq!(contents(world.dir())?, before);
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

/// Every file below a folder, with its size and when it was last written.
fn contents(folder: &Path) -> std::io::Result<BTreeMap<String, (u64, SystemTime)>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            found.extend(contents(&entry.path())?);
        } else {
            found.insert(entry.path().display().to_string(), (metadata.len(), metadata.modified()?));
        }
    }
    Ok(found)
}

/// It dies at each start, as soon as it begins the attempt.
#[test]
fn a_call_that_farcall_dies_of_at_each_start_is_poisoned_and_answered() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    std::fs::write(
        dir.path().join("farcall.yml"),
        format!("upstreams:\n  api: {{ base_url: \"{}\" }}\n", upstream.url()),
    )?;
    let deadly = Launch::new(dir.path()).dying_at(Point::AttemptBegun, 1);
    drop_file(dir.path(), "deadly.json", r#"{"upstream": "api", "end_point": "/deadly", "method": "PUT", "body": 1}"#)?;
    for _ in 0..3 {
        assert!(!deadly.spawn()?.finish()?.success());
    }
    // One that lives, or dies of anything else.
    let program = deadly.serve()?;
    let answer = response(dir.path(), "deadly.json");
    assert_eq!((&answer["state"], &answer["error"]["kind"]), (&json!("poisoned"), &json!("internal")), "{answer}");
    assert_eq!(answer["attempts"], 3);
    program.kill()?;
    let program = Program::serve(dir.path())?;
    drop_file(dir.path(), "other.json", r#"{"upstream": "api", "end_point": "/other", "method": "PUT", "body": 1}"#)?;
    assert_eq!(response(dir.path(), "other.json")["state"], "succeeded");
    let paths: Vec<String> = upstream.arrivals().iter().map(|arrival| arrival.path.clone()).collect();
    assert_eq!(paths, ["/other"], "the deadly one is never sent");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn a_file_that_the_inbox_always_breaks_down_on_is_rejected_and_others_are_taken() -> Outcome {
    // More than are offered at once: some are with the engine when the inbox breaks down on this one.
    const OTHERS: usize = 600;
    let dir = tempfile::tempdir()?;
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    std::fs::write(
        dir.path().join("farcall.yml"),
        format!("upstreams:\n  api: {{ base_url: \"{}\" }}\n", upstream.url()),
    )?;
    let call = |path: &str| json!({"upstream": "api", "end_point": path, "method": "PUT", "body": 1}).to_string();
    for n in 0..OTHERS {
        drop_file(dir.path(), format!("{n}.json"), &call(&format!("/{n}")))?;
    }
    drop_file(dir.path(), "deadly.json", &call("/deadly"))?;
    let program = Launch::new(dir.path()).panicking_on(Point::FileRead, "deadly.json").serve()?;
    for n in 0..OTHERS {
        assert_eq!(response(dir.path(), format!("{n}.json"))["state"], "succeeded");
    }
    let answer = response(dir.path(), "deadly.json");
    assert_eq!(answer["state"], "rejected", "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|message| message.contains("broke down three times")));
    until("the file has left the inbox", || (!dir.path().join("deadly.json").exists()).then_some(()));
    assert!(dir.path().join("rejected/deadly.json.problem.json").exists());
    assert_eq!(std::fs::read_to_string(dir.path().join("rejected/deadly.json"))?, call("/deadly"));
    assert_eq!(program.log().matches("watching the inbox broke down").count(), 3, "{}", program.log());
    drop_file(dir.path(), "late.json", &call("/late"))?;
    assert_eq!(response(dir.path(), "late.json")["state"], "succeeded");
    assert_eq!(upstream.arrivals().len(), OTHERS + 1, "each of the others once");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}
