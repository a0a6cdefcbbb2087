//! The one trap of a process: where it lies, when it springs, what it does.
//!
//! Global, because a boundary is crossed wherever it lies, and because a process has one death only.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

use crate::{Point, TrapError};

/// What happens where a trap lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// SIGKILL: nothing more is done, by any thread.
    Kill,
    /// SIGSTOP: whoever watches can do something to the world outside.
    Stop,
    /// A mistake of ours in this place.
    Panic,
}

/// When a trap springs.
#[derive(Debug, PartialEq, Eq)]
enum When {
    /// At this crossing alone.
    Nth(u64),
    /// At every crossing with this name.
    Named(String),
}

#[derive(Debug, PartialEq, Eq)]
struct Trap {
    point: Point,
    when: When,
    action: Action,
}

static TRAP: OnceLock<Trap> = OnceLock::new();
static CROSSINGS: AtomicU64 = AtomicU64::new(0);

pub(super) fn set(words: &str) -> Result<(), TrapError> {
    TRAP.set(Trap::parse(words)?).map_err(|_| TrapError::SecondTrap)
}

pub(super) fn reach(point: Point) {
    reach_at(point, &[]);
}

pub(super) fn reach_at(point: Point, name: &[u8]) {
    let Some(trap) = TRAP.get().filter(|trap| trap.point == point) else { return };
    let crossing = CROSSINGS.fetch_add(1, Ordering::Relaxed) + 1;
    let springs = match &trap.when {
        When::Nth(nth) => crossing == *nth,
        When::Named(wanted) => wanted.as_bytes() == name,
    };
    if springs {
        trap.spring();
    }
}

impl Trap {
    fn parse(words: &str) -> Result<Self, TrapError> {
        let unreadable = || TrapError::Unreadable(words.to_owned());
        let (words, action) = match words.split_once(':') {
            None => (words, Action::Kill),
            Some((words, "stop")) => (words, Action::Stop),
            Some((words, "panic")) => (words, Action::Panic),
            Some(_) => return Err(unreadable()),
        };
        let (name, when) = match (words.split_once('@'), words.split_once('=')) {
            (Some((name, nth)), None) => {
                (name, When::Nth(nth.parse().ok().filter(|&nth| nth > 0).ok_or_else(unreadable)?))
            }
            (None, Some((name, wanted))) if !wanted.is_empty() => (name, When::Named(wanted.to_owned())),
            _ => return Err(unreadable()),
        };
        let point = Point::ALL.iter().copied().find(|point| point.name() == name);
        Ok(Self { point: point.ok_or_else(|| TrapError::UnknownPoint(name.to_owned()))?, when, action })
    }

    fn spring(&self) {
        let signal = match self.action {
            Action::Kill => Signal::KILL,
            Action::Stop => Signal::STOP,
            Action::Panic => panic!("the trap at {} sprang", self.point.name()),
        };
        kill_process(getpid(), signal).expect("a process may signal itself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traps_are_read_and_mistakes_in_them_told() {
        let trap = |point, nth, action| Ok(Trap { point, when: When::Nth(nth), action });
        assert_eq!(Trap::parse("file-read@1"), trap(Point::FileRead, 1, Action::Kill));
        assert_eq!(Trap::parse("file-read@20:stop"), trap(Point::FileRead, 20, Action::Stop));
        assert_eq!(Trap::parse("rebuilt@2:panic"), trap(Point::Rebuilt, 2, Action::Panic));
        let named = Trap { point: Point::FileRead, when: When::Named("a.json".to_owned()), action: Action::Panic };
        assert_eq!(Trap::parse("file-read=a.json:panic"), Ok(named));
        for words in ["file-read", "file-read@", "file-read@0", "file-read@x", "file-read@1:sleep", "file-read="] {
            assert_eq!(Trap::parse(words), Err(TrapError::Unreadable(words.to_owned())));
        }
        assert_eq!(Trap::parse("nowhere@1"), Err(TrapError::UnknownPoint("nowhere".to_owned())));
    }

    #[test]
    fn a_trap_springs_at_its_own_crossing_and_no_other() {
        set("request-named@2:panic").expect("the first trap");
        assert_eq!(set("request-named@3"), Err(TrapError::SecondTrap));
        let springs = |point| std::panic::catch_unwind(|| reach(point)).is_err();
        let crossings = [Point::RequestNamed, Point::FileRead, Point::RequestNamed, Point::RequestNamed];
        assert_eq!(crossings.map(springs), [false, false, true, false]);
    }

    #[test]
    fn no_two_points_have_one_name() {
        let mut names: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Point::ALL.len());
    }
}
