//! Power cuts: ext4 on a loop file is shut down without writing its log, so that all that was not synced is gone.
//!
//! Cut at random moments and at every boundary of the program; afterwards nothing that was acknowledged is lost and no
//! file is torn. The same with a program whose syncs do nothing must lose, or the cuts would prove nothing.
//! `cargo xtask faults` runs more rounds.
#![expect(clippy::print_stdout, reason = "what each cut came to is worth knowing when a test fails")]

use std::sync::Arc;
use std::time::Duration;

use farcall_crash::Point;
use rustix::process::Signal;

use crate::crash_points::{Plan, plan};
use crate::rig::checker::{Findings, assert_kept, check, drain, torn_files};
use crate::rig::program::{Launch, Program};
use crate::rig::volume::{Volume, can_use};
use crate::rig::world::World;
use crate::rig::{long_rounds, pause, rounds, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const VOLUME_MIB: u32 = 96;
/// Rounds on one volume, before it is looked through and another is made.
const ROUNDS_OF_A_VOLUME: u64 = 3;

/// A world whose directory lies on a volume.
struct Lab {
    volume: Volume,
    world: Arc<World>,
}

impl Lab {
    /// Nothing where there can be no such volume.
    fn new() -> std::io::Result<Option<Self>> {
        let Some(volume) = Volume::ext4(VOLUME_MIB)? else { return Ok(None) };
        // What the user set up is not what is cut.
        let world = World::within(&volume.dir())?;
        std::fs::File::open(volume.dir().join("farcall.yml"))?.sync_all()?;
        std::fs::File::open(volume.dir())?.sync_all()?;
        Ok(Some(Self { volume, world }))
    }

    /// The power goes, and the program with it. It is stopped first: with a real cut it does not go on for some
    /// milliseconds either, and a sync that was under way when ext4 was shut down can return as if it had been made.
    fn cut(&self, program: &Program) -> Outcome {
        program.signal(Signal::STOP)?;
        // On a busy machine the signal takes effect some time after it was sent.
        until("the program stands still", || program.is_stopped().then_some(()));
        self.volume.cut_power()?;
        program.signal(Signal::KILL)?;
        Ok(())
    }

    /// The disk comes back with what was durable.
    fn boot(&self, program: Program) -> Outcome {
        self.world.note_power_cut();
        program.finish()?;
        self.volume.boot()?;
        let torn = torn_files(&self.world);
        assert!(torn.is_empty(), "{torn:?}");
        Ok(())
    }

    fn recover(&self) -> Result<Findings, Box<dyn std::error::Error>> {
        let program = self.world.launch().serve()?;
        drain(&self.world, &program);
        let findings = assert_kept(&self.world);
        assert_eq!(program.terminate()?.code(), Some(0));
        self.volume.check()?;
        Ok(findings)
    }
}

/// Runs until the program stands still at a point, and cuts the power there.
fn cut_at(point: Point, nth: u32) -> Outcome {
    let Some(lab) = Lab::new()? else { return Ok(()) };
    let mut program = lab.world.launch().stopping_at(point, nth).serve()?;
    let end = std::time::Instant::now() + crate::rig::PATIENCE;
    lab.world.load_until(|| {
        assert!(program.ended().expect("our own child").is_none(), "it ended: {}", program.log());
        assert!(std::time::Instant::now() < end, "{point:?} was not reached");
        // Whoever waits for an answer would wait as long as the program stands still.
        program.is_stopped() && lab.cut(&program).is_ok()
    });
    lab.boot(program)?;
    println!("cut at {}@{nth}: {:?}", point.name(), lab.recover()?);
    Ok(())
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_acknowledged_and_tears_no_file() -> Outcome {
    let rounds = rounds(3);
    let mut done = 0;
    while done < rounds {
        // Each round of a volume runs on what the cuts before it left.
        let Some(lab) = Lab::new()? else { return Ok(()) };
        for _ in 0..ROUNDS_OF_A_VOLUME.min(rounds - done) {
            let program = lab.world.launch().serve()?;
            lab.world.load_for(Duration::from_millis(60 + done * 131 % 500));
            lab.cut(&program)?;
            lab.boot(program)?;
            done += 1;
        }
        let findings = lab.recover()?;
        println!("{done} cuts: {findings:?}");
        assert!(findings.accepted > 0 && findings.arrivals > 0, "the cuts hit nothing: {findings:?}");
    }
    Ok(())
}

#[test]
fn a_power_cut_right_after_a_file_left_the_inbox_loses_no_call() -> Outcome {
    cut_at(Point::FileRemoved, 5)
}

#[test]
fn a_power_cut_right_after_a_response_appeared_tears_no_file() -> Outcome {
    cut_at(Point::ResponseNamed, 5)
}

#[test]
fn a_power_cut_right_after_a_callback_ran_tears_no_file() -> Outcome {
    cut_at(Point::CallbackEnded, 3)
}

#[test]
fn a_power_cut_at_any_boundary_loses_nothing() -> Outcome {
    let short = [Point::BodyNamed, Point::Acknowledging, Point::FileRejected, Point::RequestNamed, Point::FiledDurable];
    let all = Point::ALL.iter().copied().filter(|&point| plan(point) == Plan::Load).collect();
    let points = if long_rounds().is_some() { all } else { short.to_vec() };
    points.into_iter().try_for_each(|point| cut_at(point, 4))
}

/// The control: were the cuts gentle, or the checker blind, this program would seem to keep its promises.
#[test]
fn a_program_whose_syncs_do_nothing_loses_and_the_checker_sees_it() -> Outcome {
    if !can_use(&["strace"]) {
        return Ok(());
    }
    let Some(lab) = Lab::new()? else { return Ok(()) };
    let program = careless(lab.world.launch()).serve()?;
    lab.world.load_for(Duration::from_millis(1_500));
    lab.cut(&program)?;
    lab.world.note_power_cut();
    program.finish()?;
    lab.volume.boot()?;
    let mut broken = torn_files(&lab.world);
    // A store that cannot even be opened has lost everything.
    let restarted = lab.world.launch().spawn()?;
    let answers = || crate::rig::program::get(lab.world.dir(), "/healthz").is_ok();
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !answers() && std::time::Instant::now() < end {
        pause(Duration::from_millis(20));
    }
    broken.extend(check(&lab.world).broken);
    println!("the careless program broke {} promises, the first: {:?}", broken.len(), broken.first());
    assert!(broken.iter().any(|broken| broken.starts_with("lost")), "nothing was lost: {broken:?}");
    restarted.kill()?;
    Ok(())
}

/// The same program, whose every sync is said to have been made and is not.
fn careless(launch: Launch) -> Launch {
    let injection = "inject=fsync,fdatasync,syncfs,sync_file_range:retval=0";
    launch.wrapped(["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", injection])
}
