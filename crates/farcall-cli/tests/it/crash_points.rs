//! Kill -9 at every boundary there is: file read, commits, removal from the inbox, start, first byte, first response
//! byte, settle, response file, request file, callback, and every step of recovery.
//!
//! Which boundaries there are is `farcall_crash::Point`; [`plan`] says of each how it is reached, by a match without a
//! wildcard: a boundary without a plan does not compile, and one that is not reached fails.
#![expect(clippy::print_stdout, reason = "what each death came to is worth knowing when a test fails")]

use std::sync::Arc;

use farcall_crash::Point;
use rustix::process::Signal;

use crate::rig::checker::{Findings, assert_kept, drain, torn_files};
use crate::rig::program::{Program, get};
use crate::rig::world::{World, assert_identity};
use crate::rig::{long_rounds, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How the program is brought to a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Under the load that every world has.
    Load,
    /// While an upstream asks everybody to wait.
    Throttled,
    /// At the start after a death under load.
    Recovery,
    /// When it is asked to stop.
    Stopping,
    /// While calls that ended are pruned.
    Pruning,
    /// While files that were kept long enough are removed.
    Keeping,
}

pub(crate) const fn plan(point: Point) -> Plan {
    match point {
        Point::FileRead
        | Point::RejectionWritten
        | Point::RejectionAnswered
        | Point::ProblemNamed
        | Point::FileRejected
        | Point::BodyWritten
        | Point::BodyNamed
        | Point::BatchSealed
        | Point::InsertBegun
        | Point::InsertDurable
        | Point::StartBegun
        | Point::StartDurable
        | Point::SettleBegun
        | Point::SettleDurable
        | Point::CallbackBegun
        | Point::CallbackDurable
        | Point::FiledBegun
        | Point::FiledDurable
        | Point::Acknowledging
        | Point::FileRemoved
        | Point::AttemptBegun
        | Point::FirstByteSent
        | Point::RequestSent
        | Point::FirstByteReceived
        | Point::AttemptEnded
        | Point::ResponseWritten
        | Point::EarlierMoved
        | Point::ResponseNamed
        | Point::ResponseDurable
        | Point::RequestNamed
        | Point::RequestDurable
        | Point::CallbackLaunched
        | Point::CallbackEnded => Plan::Load,
        Point::CloseBegun | Point::CloseDurable => Plan::Throttled,
        Point::TakeOverBegun
        | Point::TakeOverDurable
        | Point::BodiesSwept
        | Point::ClockKept
        | Point::FilesSettled
        | Point::Rebuilt => Plan::Recovery,
        Point::OldFileRemoved => Plan::Keeping,
        Point::PruneBegun | Point::PruneDurable | Point::BodyUnneeded | Point::BodyRemoved => Plan::Pruning,
        // A clean stop copies the log as a long one is copied under load.
        Point::CheckpointBegun | Point::CheckpointDone | Point::StoreClosing => Plan::Stopping,
    }
}

/// Dies at a point, the nth time it is reached, and comes back.
fn survive(point: Point, nth: u32) -> Result<Findings, Box<dyn std::error::Error>> {
    let world = World::new()?;
    match plan(point) {
        Plan::Load => die_under_load(&world, point, nth)?,
        Plan::Throttled => {
            world.throttle_once();
            die_under_load(&world, point, nth)?;
        }
        Plan::Recovery => {
            die_under_load(&world, Point::ResponseNamed, 3)?;
            let program = world.launch().dying_at(point, 1).spawn()?;
            assert_killed(&world, point, program)?;
        }
        Plan::Stopping => {
            let program = world.launch().dying_at(point, 1).serve()?;
            world.load_for(std::time::Duration::from_millis(100));
            program.signal(Signal::TERM)?;
            assert_killed(&world, point, program)?;
        }
        Plan::Pruning => return die_while_pruning(&world, point, nth),
        Plan::Keeping => return die_while_keeping(&world, point, nth),
    }
    let program = world.launch().serve()?;
    drain(&world, &program);
    let findings = assert_kept(&world);
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(findings)
}

fn die_under_load(world: &Arc<World>, point: Point, nth: u32) -> Outcome {
    let mut program = world.launch().dying_at(point, nth).spawn()?;
    let end = std::time::Instant::now() + crate::rig::PATIENCE;
    world.load_until(|| {
        assert!(std::time::Instant::now() < end, "{point:?} was not reached {nth} times: {}", program.log());
        program.ended().expect("our own child").is_some()
    });
    assert_killed(world, point, program)
}

/// Everything has ended and was found to be right; then all files go, removed by a program that dies and by the next.
fn die_while_keeping(world: &Arc<World>, point: Point, nth: u32) -> Result<Findings, Box<dyn std::error::Error>> {
    let program = world.launch().serve()?;
    load_until_there_are(world, "responses", nth);
    drain(world, &program);
    let findings = assert_kept(world);
    assert_eq!(program.terminate()?.code(), Some(0));
    world.reconfigure("settle: 50ms", "settle: 50ms, keep: 500ms")?;
    let program = world.launch().dying_at(point, nth).spawn()?;
    assert_killed(world, point, program)?;
    let has_no_more = |folder| std::fs::read_dir(world.dir().join(folder)).is_ok_and(|entries| entries.count() == 0);
    // What is left of a pair is a request without its response at no time.
    let request_alone = |name: std::ffi::OsString| !world.dir().join("responses").join(name).exists();
    let requests = std::fs::read_dir(world.dir().join("requests"))?;
    let alone = requests.filter(|entry| entry.as_ref().is_ok_and(|entry| request_alone(entry.file_name()))).count();
    assert_eq!(alone, 0, "a request without its response");
    let program = world.launch().serve()?;
    until("the last file to go", || ["requests", "responses", "rejected"].into_iter().all(has_no_more).then_some(()));
    let health = program.health()?;
    assert_identity(&health);
    assert_eq!(health["pruned"], 0, "the calls stay");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(findings)
}

/// Everything has ended and was found to be right; then all of it is pruned, by a program that dies and by the next.
fn die_while_pruning(world: &Arc<World>, point: Point, nth: u32) -> Result<Findings, Box<dyn std::error::Error>> {
    let program = world.launch().serve()?;
    load_until_there_are(world, ".farcall/bodies", nth);
    drain(world, &program);
    let findings = assert_kept(world);
    assert_eq!(program.terminate()?.code(), Some(0));
    let arrivals = world.upstream.arrivals().len();

    world.reconfigure("upstreams:", "retention: { succeeded: 500ms, failed: 500ms }\nupstreams:")?;
    let program = world.launch().dying_at(point, nth).spawn()?;
    assert_killed(world, point, program)?;
    let program = world.launch().serve()?;
    until("the last call to be pruned", || {
        let health = program.health().ok()?;
        assert_identity(&health);
        (health["pruned"] == health["accepted"]).then_some(())
    });
    let bodies = world.dir().join(".farcall/bodies");
    until("the last body to be removed", || (std::fs::read_dir(&bodies).ok()?.count() == 0).then_some(()));
    let ids: Vec<String> = world.ends.lock().expect("not poisoned").keys().cloned().collect();
    for id in &ids {
        assert_eq!(get(world.dir(), &format!("/v1/calls/{id}"))?.status, 404, "{id}");
        assert_eq!(get(world.dir(), &format!("/v1/calls/{id}/attempts"))?.status, 404, "{id}");
    }
    assert!(!ids.is_empty() && world.upstream.arrivals().len() == arrivals, "nothing is sent again");
    assert_eq!(torn_files(world), [""; 0], "responses and requests stay as they are");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(findings)
}

/// For a while, and until there is more than enough in a folder to die at the nth of it, however slow the machine is.
fn load_until_there_are(world: &World, folder: &str, nth: u32) {
    let (least, end) = (std::time::Duration::from_millis(300), std::time::Instant::now() + crate::rig::PATIENCE);
    let enough = 2 * usize::try_from(nth).expect("a small number") + 2;
    let begun = std::time::Instant::now();
    world.load_until(|| {
        assert!(std::time::Instant::now() < end, "{folder} does not fill");
        let count = std::fs::read_dir(world.dir().join(folder)).map_or(0, Iterator::count);
        begun.elapsed() >= least && count >= enough
    });
}

fn assert_killed(world: &World, point: Point, program: Program) -> Outcome {
    let log = program.log();
    let status = program.finish()?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(Signal::KILL.as_raw()), "{point:?} was not where it died ({status}): {log}");
    world.note_death();
    Ok(())
}

/// Every `STEP`th point, from this one on, so that the points are spread over as many threads.
fn survive_every_nth_point(first: usize) -> Outcome {
    const STEP: usize = 3;
    for &point in Point::ALL.iter().skip(first).step_by(STEP) {
        for nth in [1, 6] {
            let is_once = matches!(plan(point), Plan::Recovery | Plan::Stopping | Plan::Throttled);
            if is_once && nth > 1 {
                continue;
            }
            println!("{}@{nth}", point.name());
            let findings = survive(point, nth)?;
            println!("{}@{nth}: {findings:?}", point.name());
        }
    }
    Ok(())
}

#[test]
fn a_kill_at_any_boundary_loses_nothing_first_third() -> Outcome {
    survive_every_nth_point(0)
}

#[test]
fn a_kill_at_any_boundary_loses_nothing_second_third() -> Outcome {
    survive_every_nth_point(1)
}

#[test]
fn a_kill_at_any_boundary_loses_nothing_last_third() -> Outcome {
    survive_every_nth_point(2)
}

/// A panic is a mistake of ours wherever it comes. What it takes with it must be seen to end, or go on.
#[test]
fn a_panic_at_any_boundary_loses_nothing_and_leaves_nobody_waiting() -> Outcome {
    // Right after a commit nothing of ours runs that could.
    let durable = [Point::InsertDurable, Point::StartDurable, Point::SettleDurable, Point::FiledDurable];
    let can_panic = |point: &&Point| plan(**point) == Plan::Load && !durable.contains(point);
    let points = Point::ALL.iter().filter(can_panic).filter(|point| **point != Point::CallbackDurable);
    let every = if long_rounds().is_some() { 1 } else { 3 };
    for &point in points.step_by(every) {
        let world = World::new()?;
        let mut program = world.launch().panicking_at(point, 3).serve()?;
        let end = std::time::Instant::now() + crate::rig::PATIENCE;
        world.load_until(|| {
            assert!(std::time::Instant::now() < end, "{point:?} was not reached");
            program.log().contains("sprang") || program.ended().expect("our own child").is_some()
        });
        world.load_for(std::time::Duration::from_millis(100));
        // Attempts that were out are in doubt when the engine ends of it.
        world.note_death();
        let ended = program.ended()?;
        println!("{}: {ended:?}", point.name());
        let program = match ended {
            Some(_) => world.launch().serve()?,
            None => program,
        };
        drain(&world, &program);
        assert_kept(&world);
        assert_eq!(program.terminate()?.code(), Some(0));
    }
    Ok(())
}

#[test]
fn twenty_kills_during_recovery_change_nothing() -> Outcome {
    let world = World::new()?;
    die_under_load(&world, Point::SettleBegun, 20)?;
    let steps = Point::ALL.iter().copied().filter(|&point| plan(point) == Plan::Recovery);
    // The first commit settles what was out; as long as it does not come through nothing new is started.
    let more = [Point::BatchSealed, Point::SettleBegun];
    let points: Vec<Point> = steps.chain(more).collect();
    let mut recovering = 0;
    for &point in points.iter().cycle().take(20) {
        let program = world.launch().dying_at(point, 1).spawn()?;
        assert_killed(&world, point, program)?;
        recovering += 1;
    }
    let program = world.launch().serve()?;
    drain(&world, &program);
    let findings = assert_kept(&world);
    println!("{recovering} kills during recovery: {findings:?}");
    // Recovery itself sends nothing, so nothing but what was out at the first death is in doubt.
    let bound = crate::rig::world::CONCURRENCY;
    assert!(findings.unknown <= bound, "attempts grew: {} unknown, {bound} were out", findings.unknown);
    until("the health", || program.health().ok());
    Ok(())
}
