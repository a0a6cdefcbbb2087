//! A store that was changed behind farcall's back: a log taken away, bits that flipped.
//!
//! What is missing or damaged is told of: a refusal with exit 7, an error about one call. Never is anything else sent,
//! or answered, than what was stored.
#![expect(clippy::print_stdout, reason = "how often damage was met, and how, is worth knowing")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::rig::checker::{assert_kept, drain};
use crate::rig::program::{Launch, Program, get, post_call};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::world::World;
use crate::rig::{pause, rounds, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn store(dir: &Path, name: &str) -> PathBuf {
    dir.join(".farcall").join(name)
}

#[test]
fn a_log_that_was_taken_away_is_noticed_and_nothing_is_sent() -> Outcome {
    let world = World::new()?;
    let program = world.launch().serve()?;
    world.load_for(Duration::from_millis(300));
    world.kill(program)?;
    // What waits is made when there is no fault, so that what is sent without the log would be seen.
    std::fs::remove_file(store(world.dir(), "farcall.db-wal"))?;
    let arrivals = world.upstream.arrivals().len();
    let program = world.launch().spawn()?;
    let log = world.dir().with_file_name("serve.log");
    assert_eq!(program.finish()?.code(), Some(7));
    let said = std::fs::read_to_string(log)?;
    assert!(said.contains("lacks the last") && said.contains("docs/promises.md"), "{said}");
    assert_eq!(world.upstream.arrivals().len(), arrivals, "nothing is sent");
    // As the documents say: with the mark gone farcall takes what there is.
    std::fs::remove_file(store(world.dir(), "lock"))?;
    let program = world.launch().serve()?;
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn a_shared_memory_file_that_was_taken_away_is_made_anew() -> Outcome {
    let world = World::new()?;
    let program = world.launch().serve()?;
    world.load_for(Duration::from_millis(300));
    world.kill(program)?;
    std::fs::remove_file(store(world.dir(), "farcall.db-shm"))?;
    let program = world.launch().serve()?;
    drain(&world, &program);
    assert_kept(&world);
    Ok(())
}

/// A store at rest with calls that have ended and calls that are due soon.
struct Shelf {
    dir: tempfile::TempDir,
    upstream: Recorder,
    database: Vec<u8>,
}

/// What came of a flipped bit.
#[derive(Debug, Default)]
struct Tally {
    refused: u32,
    /// It ran, and some calls were not sent.
    told: u32,
    /// Nobody looked at that bit, or it was of no account.
    harmless: u32,
}

const WAITING: usize = 20;
/// Long enough for all calls to be accepted on a slow machine before the first is due.
const DELAY_S: u64 = 8;

/// What call `n` sends: easily found in the database.
fn body(n: usize) -> Value {
    json!({ "n": n, "text": format!("marker {n} {}", "abcdefgh".repeat(60)) })
}

impl Shelf {
    fn stock() -> Result<Self, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let upstream = Recorder::start(|_, _| Reply::new(200))?;
        let config = format!("upstreams:\n  api: {{ base_url: \"{}\", retry: 0 }}\n", upstream.url());
        std::fs::write(dir.path().join("farcall.yml"), config)?;
        let program = Program::serve(dir.path())?;
        for n in 0..WAITING {
            let call =
                json!({ "upstream": "api", "end_point": "/x", "method": "PUT", "delay": DELAY_S, "body": body(n) });
            assert_eq!(post_call(dir.path(), &call)?.status, 202);
        }
        assert_eq!(program.terminate()?.code(), Some(0));
        assert!(upstream.arrivals().is_empty(), "they are not due yet");
        let database = std::fs::read(store(dir.path(), "farcall.db"))?;
        pause(Duration::from_secs(DELAY_S));
        Ok(Self { dir, upstream, database })
    }

    /// In turn: wherever the text of some call stands (pages keep old copies of what was moved), and anywhere.
    fn bits(&self, round: usize) -> Vec<usize> {
        let anywhere = (round.wrapping_mul(2_654_435_761) >> 3) % self.database.len();
        if round % 2 == 1 {
            return vec![anywhere];
        }
        let marker = format!("marker {} ", round % WAITING).into_bytes();
        let windows = self.database.windows(marker.len()).enumerate();
        let stands = windows.filter(|(_, window)| *window == marker).map(|(at, _)| at + 20 + round % 100);
        stands.collect()
    }

    fn try_without(&self, round: usize, tally: &mut Tally) -> Outcome {
        let (bytes, bit) = (self.bits(round), 1 << (round % 8));
        let mut damaged = self.database.clone();
        bytes.iter().for_each(|&byte| damaged[byte] ^= bit);
        std::fs::write(store(self.dir.path(), "farcall.db"), damaged)?;
        for name in ["farcall.db-wal", "farcall.db-shm", "lock"] {
            let _ = std::fs::remove_file(store(self.dir.path(), name));
        }
        self.upstream.arrivals().clear();
        let mut program = Launch::new(self.dir.path()).spawn()?;
        let end = Instant::now() + Duration::from_secs(3);
        let sent = || self.upstream.arrivals().len();
        until("all is sent, or the program's end", || {
            let has_ended = program.ended().expect("our own child").is_some();
            (has_ended || sent() >= WAITING || Instant::now() > end).then_some(())
        });
        for arrival in self.upstream.arrivals().iter() {
            let found: Value = serde_json::from_slice(&arrival.body)?;
            let n = found["n"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            assert_eq!(found, body(n), "bit {bit} of {bytes:?} was sent");
        }
        match program.ended()? {
            Some(status) => {
                assert_eq!(status.code(), Some(7), "bit {bit} of {bytes:?}: {}", program.log());
                tally.refused += 1;
            }
            None if sent() < WAITING => tally.told += 1,
            None => tally.harmless += 1,
        }
        until("it serves or ends", || {
            let has_ended = program.ended().expect("our own child").is_some();
            (has_ended || get(self.dir.path(), "/healthz").is_ok()).then_some(())
        });
        program.kill()?;
        Ok(())
    }
}

#[test]
fn a_flipped_bit_is_never_sent() -> Outcome {
    let shelf = Shelf::stock()?;
    let mut tally = Tally::default();
    let rounds = usize::try_from(rounds(12))?;
    for round in 0..rounds {
        shelf.try_without(round, &mut tally)?;
    }
    println!("{rounds} flipped bits: {tally:?}");
    assert!(
        tally.told + tally.refused >= u32::try_from(rounds / 2)?,
        "bits of what is sent were not missed: {tally:?}"
    );
    Ok(())
}

/// Waiting calls in a store at rest; the middle one of them is to be damaged.
struct Queue {
    dir: tempfile::TempDir,
    upstream: Recorder,
    ids: Vec<String>,
}

const VICTIM: usize = 4;
const CALLS: usize = 9;

impl Queue {
    /// Due soon. Every third call has settings of its own, every fourth a body in a file of its own.
    fn stock() -> Result<Self, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let upstream = Recorder::start(|_, _| Reply::new(200))?;
        let config = format!("upstreams:\n  api: {{ base_url: \"{}\", retry: 0 }}\n", upstream.url());
        std::fs::write(dir.path().join("farcall.yml"), config)?;
        let program = Program::serve(dir.path())?;
        let mut ids = Vec::new();
        for n in 0..CALLS {
            let mut call =
                json!({ "upstream": "api", "end_point": "/x", "method": "PUT", "delay": DELAY_S, "body": body(n) });
            if n % 3 == 0 {
                call["timeout"] = json!(20);
            }
            if n % VICTIM == 0 {
                call["body"]["filler"] = json!("x".repeat(70_000));
            }
            ids.push(post_call(dir.path(), &call)?.body["id"].as_str().ok_or("no id")?.to_owned());
        }
        assert_eq!(program.terminate()?.code(), Some(0));
        Ok(Self { dir, upstream, ids })
    }

    fn damage(&self, sql: &str) -> Outcome {
        let connection = Connection::open(store(self.dir.path(), "farcall.db"))?;
        let bits = self.ids[VICTIM].trim_start_matches("call_").replace('-', "");
        let changed = connection.execute(&sql.replace("$ID", &format!("x'{bits}'")), [])?;
        assert_eq!(changed, 1);
        connection.close().map_err(|(_, error)| error)?;
        Ok(())
    }

    /// What each call has come to when all that can end have.
    fn ends(&self) -> Result<Vec<Value>, Box<dyn std::error::Error>> {
        until("every other call has arrived", || (self.upstream.arrivals().len() >= CALLS - 1).then_some(()));
        let end = |id: &String| {
            until("the call's end", || {
                let call = get(self.dir.path(), &format!("/v1/calls/{id}")).ok()?;
                let state = call.body["state"].as_str().unwrap_or("damaged");
                (!matches!(state, "scheduled" | "queued" | "running" | "retrying")).then_some(call.body)
            })
        };
        let ends = self.ids.iter().map(end).collect();
        assert_eq!(self.upstream.arrivals().len(), CALLS - 1, "the damaged one is not sent");
        Ok(ends)
    }

    fn victim_and_others(&self) -> Result<Value, Box<dyn std::error::Error>> {
        let mut ends = self.ends()?;
        let victim = ends.remove(VICTIM);
        assert!(ends.iter().all(|call| call["state"] == "succeeded"), "{ends:?}");
        Ok(victim)
    }
}

#[test]
fn a_call_whose_text_is_damaged_ends_with_its_error_and_all_others_are_made() -> Outcome {
    let inline = "UPDATE requests SET sum = sum + 1 WHERE call = (SELECT seq FROM calls WHERE id = $ID)";
    for is_missing in [false, true] {
        let queue = Queue::stock()?;
        if is_missing {
            let name = queue.ids[VICTIM].trim_start_matches("call_").to_owned() + ".request";
            std::fs::remove_file(store(queue.dir.path(), "bodies").join(name))?;
        } else {
            queue.damage(inline)?;
        }
        let program = Program::serve(queue.dir.path())?;
        let victim = queue.victim_and_others()?;
        assert_eq!((&victim["state"], &victim["error"]["kind"]), (&json!("failed"), &json!("internal")), "{victim}");
        assert_eq!(program.terminate()?.code(), Some(0));
    }
    Ok(())
}

#[test]
fn a_call_whose_row_is_damaged_is_told_of_and_all_others_are_made() -> Outcome {
    let queue = Queue::stock()?;
    queue.damage("UPDATE calls SET via = 'tcq' WHERE id = $ID")?;
    let program = Program::serve(queue.dir.path())?;
    let victim = queue.victim_and_others()?;
    assert_eq!(victim["status"], 503, "{victim}");
    let told = program.log().matches("a stored call is damaged").count();
    assert_eq!(told, 1, "{}", program.log());
    assert!(program.log().contains(&queue.ids[VICTIM]));
    assert_eq!(program.terminate()?.code(), Some(0));
    // Nobody waits for it: `run` comes to its end, and says so.
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_farcall")).arg("run").arg(queue.dir.path()).output()?;
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.contains("1 call damaged in the store"), "{said}");
    Ok(())
}

#[test]
fn a_running_call_that_is_damaged_hurts_no_other_when_the_program_starts_again() -> Outcome {
    for (sql, state) in [
        ("UPDATE calls SET source = 'appi' WHERE id = $ID", None),
        ("UPDATE requests SET sum = sum + 1 WHERE call = (SELECT seq FROM calls WHERE id = $ID)", Some("failed")),
    ] {
        let dir = tempfile::tempdir()?;
        let upstream =
            Recorder::start(|_, number| Reply::new(200).after(Duration::from_secs(u64::from(number < 2) * 30)))?;
        let config = format!("upstreams:\n  api: {{ base_url: \"{}\", retry: 0 }}\n", upstream.url());
        std::fs::write(dir.path().join("farcall.yml"), config)?;
        let program = Program::serve(dir.path())?;
        let call = json!({ "upstream": "api", "end_point": "/x", "method": "PUT", "timeout": 40, "body": body(1) });
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.push(post_call(dir.path(), &call)?.body["id"].as_str().ok_or("no id")?.to_owned());
        }
        until("both are out", || (upstream.arrivals().len() == 2).then_some(()));
        program.kill()?;
        let queue = Queue { dir, upstream, ids: vec![ids[1].clone(); VICTIM + 1] };
        queue.damage(sql)?;
        let program = Program::serve(queue.dir.path())?;
        let read = |id: &str| get(queue.dir.path(), &format!("/v1/calls/{id}")).ok();
        until("the other one is made again", || read(&ids[0]).filter(|call| call.body["state"] == "succeeded"));
        match state {
            Some(state) => drop(until("its end", || read(&ids[1]).filter(|call| call.body["state"] == state))),
            None => assert!(program.log().contains("a stored call is damaged"), "{}", program.log()),
        }
        assert_eq!(queue.upstream.arrivals().len(), 3);
        assert_eq!(program.terminate()?.code(), Some(0));
    }
    Ok(())
}
