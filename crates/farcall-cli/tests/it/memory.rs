//! Little memory: many calls wait in a small group, and whoever is killed for want of memory loses nothing.
#![expect(clippy::print_stdout, reason = "how much memory was used is worth knowing")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::rig::cgroup::Cgroup;
use crate::rig::checker::{assert_kept, drain};
use crate::rig::program::{Launch, Program, get, send_raw};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::volume::can_use;
use crate::rig::world::{Told, World};
use crate::rig::{PATIENCE, long_rounds, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const GROUP_MIB: u32 = 128;
/// What the program itself may take of it, the file of the program and the page cache left out.
const PRIVATE_KIB_MAX: u64 = 100 << 10;
const LINES_AT_ONCE: usize = 2_000;

#[test]
fn many_calls_wait_in_little_memory_and_so_they_do_after_a_kill() -> Outcome {
    let Some(group) = Cgroup::with_memory(GROUP_MIB)? else { return Ok(()) };
    let calls = if long_rounds().is_some() { 200_000 } else { 20_000 };
    let dir = tempfile::tempdir()?;
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\", rate_day: 1 }}\n", upstream.url());
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    let launch = Launch::new(dir.path()).wrapped(group.entering());
    let program = launch.serve()?;
    let line =
        |number| json!({"upstream": "api", "end_point": format!("/{number}"), "body": {"n": number}}).to_string();
    let headers = "content-type: application/x-ndjson\r\n";
    for first in (0..calls).step_by(LINES_AT_ONCE) {
        let lines: String = (first..first + LINES_AT_ONCE).map(|number| line(number) + "\n").collect();
        let (_, answers) = send_raw(dir.path(), "POST /v1/calls/bulk", headers, &lines)?;
        assert_eq!(answers.matches("call_").count(), LINES_AT_ONCE, "{answers}");
    }
    let held = program.private_kib();
    program.kill()?;
    let begun = Instant::now();
    let program = launch.serve()?;
    let ready = begun.elapsed();
    assert_eq!(program.health()?["accepted"], calls);
    let held_again = program.private_kib();
    println!("{calls} calls wait: {held} KiB, and {held_again} KiB after a start of {ready:?}");
    assert!(held.max(held_again) < PRIVATE_KIB_MAX, "{held} KiB, then {held_again} KiB");
    assert_eq!(program.terminate()?.code(), Some(0));
    assert_eq!(upstream.arrivals().len(), 1);
    Ok(())
}

/// Takes nearly all the memory of a group.
fn crowd(group: &Cgroup) -> std::io::Result<Child> {
    let hold = format!("my $held = 'x' x ({} << 20); sleep 600", GROUP_MIB - 8);
    let words = group.entering().into_iter().chain(["perl", "-e", &hold].map(str::to_owned));
    let words: Vec<String> = words.collect();
    Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).spawn()
}

#[test]
fn an_engine_that_is_killed_for_want_of_memory_loses_nothing() -> Outcome {
    if !can_use(&["perl"]) {
        return Ok(());
    }
    let world = World::new()?;
    for _ in 0..3 {
        let Some(group) = Cgroup::with_memory(GROUP_MIB)? else { return Ok(()) };
        let mut program = world.launch().wrapped(group.entering()).serve()?;
        // It is to be the one that is killed.
        std::fs::write(format!("/proc/{}/oom_score_adj", program.id()), "1000")?;
        world.load_for(Duration::from_millis(200));
        let mut other = crowd(&group)?;
        let end = Instant::now() + PATIENCE;
        world.load_until(|| program.ended().expect("our own child").is_some() || Instant::now() >= end);
        let ended = program.ended()?;
        other.kill()?;
        other.wait()?;
        let signal = ended.as_ref().and_then(std::os::unix::process::ExitStatusExt::signal);
        assert_eq!(signal, Some(Signal::KILL.as_raw()), "{ended:?}: {}", program.log());
        world.note_death();
    }
    end(&world)
}

/// Memory that is asked for and not given, at some moment under load: either the process dies of it, or it says so and goes
/// on when there is memory again.
#[test]
fn an_engine_that_gets_no_more_memory_says_so_or_dies_and_loses_nothing() -> Outcome {
    if !can_use(&["prlimit"]) {
        return Ok(());
    }
    let world = World::new()?;
    for _ in 0..3 {
        let mut program = world.launch().serve()?;
        world.load_for(Duration::from_millis(200));
        limit_data(&program, "1")?;
        let end = Instant::now() + PATIENCE;
        world.load_until(|| {
            let is_told = || get(world.dir(), "/healthz").is_ok_and(|health| health.body["status"] != "ok");
            program.ended().expect("our own child").is_some() || is_told() || Instant::now() >= end
        });
        // What was out is in doubt, whether the process died of it or its store failed.
        world.note_death();
        let ended = program.ended()?;
        println!("it ended: {ended:?}");
        if let Some(ended) = ended {
            assert!(!ended.success(), "{}", program.log());
            continue;
        }
        assert_ne!(program.health()?["status"], "ok", "{}", program.log());
        limit_data(&program, "unlimited")?;
        until("calls are taken again", || matches!(world.submit(world.next_number()), Told::Accepted(_)).then_some(()));
        world.kill(program)?;
    }
    end(&world)
}

fn limit_data(program: &Program, bytes: &str) -> Outcome {
    let words = [format!("--pid={}", program.id()), format!("--data={bytes}:unlimited")];
    assert!(Command::new("prlimit").args(words).status()?.success());
    Ok(())
}

fn end(world: &World) -> Outcome {
    let program = world.launch().serve()?;
    drain(world, &program);
    let findings = assert_kept(world);
    println!("{findings:?}");
    assert!(findings.accepted > 0 && findings.files > 0, "{findings:?}");
    until("the health", || program.health().ok());
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}
