//! A store that was changed behind farcall's back: a log taken away, bits that flipped.
//!
//! What is missing or damaged is told of: a refusal with exit 7, an error about one call. Never is anything else sent,
//! or answered, than what was stored.
#![expect(clippy::print_stdout, reason = "how often damage was met, and how, is worth knowing")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
            let call = json!({ "upstream": "api", "end_point": "/x", "method": "PUT", "delay": "1s", "body": body(n) });
            assert_eq!(post_call(dir.path(), &call)?.status, 202);
        }
        assert_eq!(program.terminate()?.code(), Some(0));
        assert!(upstream.arrivals().is_empty(), "they are not due yet");
        let database = std::fs::read(store(dir.path(), "farcall.db"))?;
        pause(Duration::from_secs(1));
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
        let answers = get(self.dir.path(), "/healthz").is_ok();
        assert!(answers || program.ended()?.is_some(), "it neither serves nor ends");
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
