//! Disks that fail: syncs that return an error once or for ever, slow ones, a file system that became read-only.
//!
//! Injected into the real program by strace. Whether it heals itself or ends with exit 7, nothing acknowledged is lost,
//! and a failed sync is never taken for a good one.
#![expect(clippy::print_stdout, reason = "what each fault came to is worth knowing when a test fails")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::rig::checker::{assert_kept, drain};
use crate::rig::program::{Launch, Program, get};
use crate::rig::volume::{Volume, can_use};
use crate::rig::world::{Told, World};
use crate::rig::{PATIENCE, pause, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How soon a disk that stays broken is noticed.
const NOTICED_WITHIN: Duration = Duration::from_secs(5 * SLOW);
/// How much slower than usual the machine may be.
const SLOW: u64 = 4;

/// The program under strace, which keeps its process id; `injection` says which calls fail, and when. Each thread
/// counts its own.
fn traced(launch: Launch, injection: &str) -> Launch {
    traced_by(launch, &[injection])
}

fn traced_by(launch: Launch, injections: &[&str]) -> Launch {
    let calls = |injection: &&str| injection.split_once(':').expect("calls, then what happens to them").0.to_owned();
    let trace = format!("trace={}", injections.iter().map(calls).collect::<Vec<_>>().join(","));
    let inject = injections.iter().flat_map(|injection| ["-e".to_owned(), format!("inject={injection}")]);
    let strace = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e"];
    launch.wrapped(strace.map(str::to_owned).into_iter().chain([trace]).chain(inject))
}

/// What was broken is whole again: everything ends, and every promise is kept.
fn heal(world: &World, mut program: Program) -> Outcome {
    // What was out when the store failed is in doubt, whether the process died of it or not.
    match program.ended()? {
        Some(status) => {
            world.note_death();
            assert_eq!(status.code(), Some(7), "it ended by {status}: {}", program.log());
        }
        None => world.kill(program)?,
    }
    let program = world.launch().serve()?;
    drain(world, &program);
    println!("{:?}", assert_kept(world));
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn a_sync_that_fails_once_is_never_taken_for_a_good_one() -> Outcome {
    if !can_use(&["strace"]) {
        return Ok(());
    }
    for injection in [
        // The first thread syncs about twenty times while it opens the store; the store's own goes on from there.
        "fsync,fdatasync:error=EIO:when=4",
        "fsync,fdatasync:error=EIO:when=25",
        "fsync,fdatasync:error=EIO:when=50",
        "fsync,fdatasync:error=ENOSPC:when=30",
        "pwrite64:error=EIO:when=20",
        "pwrite64:error=ENOSPC:when=150",
    ] {
        println!("{injection}");
        let world = World::new()?;
        let program = traced(world.launch(), injection).spawn()?;
        world.load_for(Duration::from_millis(1_200));
        world.note_death();
        heal(&world, program)?;
    }
    Ok(())
}

/// A quota does not show in what the file system says of itself, and SQLite tells it from no other error of a write.
#[test]
fn a_quota_that_is_used_up_refuses_like_a_full_disk_and_is_over_when_there_is_space() -> Outcome {
    if !can_use(&["strace"]) {
        return Ok(());
    }
    let world = World::new()?;
    let used_up = ["pwrite64:error=EDQUOT:when=200..215", "fallocate:error=EDQUOT"];
    let program = traced_by(world.launch(), &used_up).serve()?;
    let told = |wanted: &Told| world.told.lock().expect("not poisoned").values().filter(|told| *told == wanted).count();
    let end = Instant::now() + PATIENCE;
    world.load_until(|| told(&Told::Refused(507)) > 0 || Instant::now() >= end);
    assert!(told(&Told::Refused(507)) > 0, "calls that cannot be kept are refused: {}", program.log());
    until("calls are taken again", || matches!(world.submit(world.next_number()), Told::Accepted(_)).then_some(()));
    drain(&world, &program);
    assert_eq!(told(&Told::Unknown), 0, "a refusal is certain: {}", program.log());
    println!("{:?}", assert_kept(&world));
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn syncs_that_always_fail_are_told_of_and_nothing_more_is_sent() -> Outcome {
    if !can_use(&["strace"]) {
        return Ok(());
    }
    let world = World::new()?;
    let mut program = traced(world.launch(), "fsync,fdatasync:error=EIO:when=40+").serve()?;
    world.load_for(Duration::from_millis(500));
    let begun = Instant::now();
    until("the failure is told", || {
        let is_over = program.ended().ok()?.is_some();
        let is_failing = get(world.dir(), "/healthz").is_ok_and(|health| health.body["status"] != "ok");
        (is_over || is_failing).then_some(())
    });
    assert!(begun.elapsed() < NOTICED_WITHIN, "it took {:?}", begun.elapsed());
    // What had left by then may still arrive.
    pause(Duration::from_millis(100));
    let (arrivals, busy) = (world.upstream.arrivals().len(), cpu_time(&program));
    pause(Duration::from_secs(2));
    if program.ended()?.is_none() {
        let used = cpu_time(&program).saturating_sub(busy);
        assert!(used < Duration::from_millis(200), "a busy loop: {used:?} in 2 s");
    }
    assert_eq!(world.upstream.arrivals().len(), arrivals, "nothing is sent that cannot be recorded");
    heal(&world, program)
}

#[test]
fn a_slow_disk_is_shared_by_many_acceptances() -> Outcome {
    if !can_use(&["strace"]) {
        return Ok(());
    }
    let world = World::new()?;
    let program = traced(world.launch(), "fsync,fdatasync:delay_enter=200000").serve()?;
    // A machine that is busy with others slows everything down but the disk: the best of several rounds counts.
    let mut rounds = Vec::new();
    while rounds.len() < 5 {
        let (rate, p99) = accept_for_a_while(&world)?;
        println!("{rate:.0} acceptances a second, p99 {p99:?}, with 200 ms a sync");
        rounds.push((rate, p99));
        if rate >= 50.0 && p99 < Duration::from_secs(1) {
            break;
        }
    }
    let best = rounds.last().is_some_and(|(rate, p99)| *rate >= 50.0 && *p99 < Duration::from_secs(1));
    assert!(best, "acceptances a second, p99: {rounds:?}");
    world.kill(program)?;
    heal(&world, world.launch().serve()?)
}

/// Acceptances a second, and the time that all but one of a hundred take at most.
fn accept_for_a_while(world: &World) -> Result<(f64, Duration), Box<dyn std::error::Error>> {
    const SUBMITTERS: usize = 32;
    let times = Mutex::new(Vec::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..SUBMITTERS {
            scope.spawn(|| {
                while begun.elapsed() < Duration::from_secs(4) {
                    let asked = Instant::now();
                    let told = world.submit(world.next_small_number());
                    assert!(matches!(told, Told::Accepted(_)), "{told:?}");
                    times.lock().expect("not poisoned").push(asked.elapsed());
                }
            });
        }
    });
    let mut times = times.into_inner()?;
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    Ok((rate, p99))
}

#[test]
fn a_file_system_that_became_read_only_is_told_of_and_loses_nothing() -> Outcome {
    let Some(volume) = Volume::ext4(64)? else { return Ok(()) };
    let world = World::within(&volume.dir())?;
    let mut program = world.launch().serve()?;
    world.load_for(Duration::from_millis(300));
    // What ext4 does by itself when it finds an error. The program stands still meanwhile: a sync that is under way
    // just then can return as if it had been made, as in a power cut (`power::Lab::cut`).
    program.signal(rustix::process::Signal::STOP)?;
    until("the program stands still", || program.is_stopped().then_some(()));
    volume.remount("abort")?;
    program.signal(rustix::process::Signal::CONT)?;
    world.note_power_cut();
    let begun = Instant::now();
    world.load_until(|| {
        let is_over = program.ended().expect("our own child").is_some();
        let is_failing = get(world.dir(), "/healthz").is_ok_and(|health| health.body["status"] != "ok");
        assert!(begun.elapsed() < NOTICED_WITHIN, "nobody noticed: {}", program.log());
        is_over || is_failing
    });
    println!("{}", program.log());
    if program.ended()?.is_none() {
        program.signal(rustix::process::Signal::KILL)?;
    }
    let status = program.finish()?;
    assert!(status.code().is_none_or(|code| code == 7), "it ended by {status}");
    volume.boot()?;
    let program = world.launch().serve()?;
    drain(&world, &program);
    println!("{:?}", assert_kept(&world));
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

/// The processor time a program has used.
fn cpu_time(program: &Program) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", program.id())).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
