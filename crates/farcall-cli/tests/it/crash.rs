//! Kill -9 at random moments, start again, and nothing is lost: the checker of the promises, on the real binary.
//!
//! Calls come in by file and by API while the program is killed again and again, also while it recovers. What the
//! upstream saw, what the submitters were told and what the store says must agree.
#![expect(clippy::print_stdout, reason = "how much was in flight is worth knowing when a test fails")]

use std::time::Duration;

use farcall_crash::Point;

use crate::rig::checker::{assert_kept, drain};
use crate::rig::program::{Launch, Program};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::world::World;
use crate::rig::{drop_file, response, rounds, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[test]
fn without_faults_every_promise_is_kept() -> Outcome {
    let world = World::new()?;
    let program = world.launch().serve()?;
    let told = || world.told.lock().expect("not poisoned").len();
    let dropped = || world.dropped.lock().expect("not poisoned").len();
    until("some load", || {
        world.load_for(Duration::from_millis(200));
        (told() > 20 && dropped() > 20).then_some(())
    });
    drain(&world, &program);
    let findings = assert_kept(&world);
    println!("{findings:?}");
    assert!(findings.accepted > 20 && findings.files > 20 && findings.rejected > 0, "{findings:?}");
    assert_eq!(findings.unknown, 0, "nothing was in doubt");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn kills_at_random_moments_lose_nothing_and_repeat_at_most_what_was_in_flight() -> Outcome {
    let (world, kills) = (World::new()?, rounds(20));
    for kill in 0..kills {
        // Spread over start-up, load and filing; the moment itself is the machine's.
        let program = world.launch().spawn()?;
        world.load_for(Duration::from_millis(30 + kill * 37 % 200));
        world.kill(program)?;
    }
    let program = world.launch().serve()?;
    drain(&world, &program);
    let findings = assert_kept(&world);
    println!("{kills} kills: {findings:?}");
    assert!(findings.accepted > 0 && findings.files > 0 && findings.unknown > 0, "the kills hit nothing: {findings:?}");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
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

/// The inbox is not read before a start is ready: those files are known when their turn comes, and new ones beside them.
#[test]
fn files_of_durable_calls_that_lie_among_many_others_are_not_taken_twice() -> Outcome {
    const FILES: usize = 700;
    let dir = tempfile::tempdir()?;
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\" }}\n", upstream.url());
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    let call = |n: usize| format!(r#"{{"upstream": "api", "end_point": "/{n}"}}"#);
    for n in 0..FILES {
        drop_file(dir.path(), format!("{n}.json"), &call(n))?;
    }
    // In the second batch: of the first, some are out of the inbox and some are not.
    let program = Launch::new(dir.path()).dying_at(Point::InsertDurable, 300).serve()?;
    assert!(!program.finish()?.success());
    let left = (0..FILES).filter(|n| dir.path().join(format!("{n}.json")).exists()).count();
    assert!(left >= FILES - 300, "{left} are in the inbox");
    let program = Program::serve(dir.path())?;
    drop_file(dir.path(), "late.json", &call(FILES))?;
    for name in (0..FILES).map(|n| format!("{n}.json")).chain(["late.json".to_owned()]) {
        assert_eq!(response(dir.path(), name)["state"], "succeeded");
    }
    assert_eq!(program.health()?["accepted"], FILES + 1);
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

/// Device numbers may change over a reboot, of the disk and of whatever is mounted from elsewhere.
#[test]
fn a_file_whose_disk_got_another_number_since_is_not_taken_twice() -> Outcome {
    let dir = tempfile::tempdir()?;
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\" }}\n", upstream.url());
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    let program = Launch::new(dir.path()).dying_at(Point::InsertDurable, 1).serve()?;
    drop_file(dir.path(), "order.json", r#"{"upstream": "api", "end_point": "/x", "delay": "1s"}"#)?;
    assert!(!program.finish()?.success());
    assert!(dir.path().join("order.json").exists(), "it is stored, and still in the inbox");
    let database = rusqlite::Connection::open(dir.path().join(".farcall/farcall.db"))?;
    assert_eq!(database.execute("UPDATE calls SET file_device = file_device + 1", [])?, 1);
    database.close().map_err(|(_, error)| error)?;
    let program = Program::serve(dir.path())?;
    assert_eq!(response(dir.path(), "order.json")["state"], "succeeded");
    assert_eq!(program.health()?["accepted"], 1);
    assert!(!dir.path().join("order.json").exists());
    assert_eq!(upstream.arrivals().len(), 1);
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}
