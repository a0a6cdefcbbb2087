//! One run of a seed, and many of them side by side.
//!
//! A run that panics, or that a checker stops, is reported with the seed that replays it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::disk::Care;
use crate::guests;
use crate::world::World;

/// Lines of the log that a failure shows.
const LINES_KEPT: usize = 50;

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    pub calls: u64,
    pub attempts: u64,
    pub arrivals: u64,
    pub starts: u64,
    pub crashes: u64,
    /// Commits that failed.
    pub failed: u64,
    /// Times in which the process did nothing.
    pub stalls: u64,
    /// Lines of the log.
    pub lines: u64,
    /// Stands for every line of the log: the same seed always gives the same.
    pub digest: u64,
}

/// A promise that a seed shows to be broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub seed: u64,
    pub what: String,
    /// The last lines of the log; times are seconds of the virtual clock.
    pub log: Vec<String>,
}

/// Runs one seed.
///
/// # Errors
/// The first promise that is found broken. A panic counts as one.
///
/// # Example
/// ```
/// let summary = farcall_sim::run(1).expect("seed 1 finds nothing");
/// assert!(summary.calls > 0);
/// ```
pub fn run(seed: u64) -> Result<Summary, Box<Failure>> {
    replay(seed, LINES_KEPT)
}

/// Runs one seed; a failure shows at most this many lines of the log.
///
/// # Errors
/// As [`run`].
pub fn replay(seed: u64, lines_max: usize) -> Result<Summary, Box<Failure>> {
    replay_on(Care::Correct, seed, lines_max)
}

/// Runs one seed on a store of this care; a careless one must be found out sooner or later.
///
/// # Errors
/// As [`run`].
pub fn replay_on(care: Care, seed: u64, lines_max: usize) -> Result<Summary, Box<Failure>> {
    if care == Care::Correct {
        let found = match catch_unwind(|| guests::check(seed)) {
            Ok(Ok(())) => None,
            Ok(Err(violation)) => Some(violation.to_string()),
            Err(panic) => Some(format!("panic: {}", message(&*panic))),
        };
        if let Some(what) = found {
            return Err(Box::new(Failure { seed, what, log: Vec::new() }));
        }
    }
    let mut world = World::new(seed, lines_max.max(1), care);
    let found = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(Ok(())) => return Ok(summary(&world)),
        Ok(Err(violation)) => violation.to_string(),
        Err(panic) => format!("panic: {}", message(&*panic)),
    };
    Err(Box::new(Failure { seed, what: found, log: world.log.tail(world.plan.start) }))
}

/// Runs `count` seeds from `first` on, on every processor, and stops at the first failure.
///
/// # Errors
/// A failure of the smallest seed that was found to fail before all threads had stopped.
pub fn run_many(first: u64, count: u64) -> Result<Summary, Box<Failure>> {
    let next = AtomicU64::new(first);
    let end = first.saturating_add(count);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let found: Vec<_> = thread::scope(|scope| {
        let work = || work(&next, end);
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        handles.into_iter().map(|handle| handle.join().expect("panics of runs are caught")).collect()
    });
    let failures = found.iter().filter_map(|result| result.as_ref().err());
    if let Some(first) = failures.min_by_key(|failure| failure.seed) {
        return Err(first.clone());
    }
    Ok(found.into_iter().flatten().fold(Summary::default(), Summary::and))
}

fn work(next: &AtomicU64, end: u64) -> Result<Summary, Box<Failure>> {
    let mut all = Summary::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return Ok(all);
        }
        let one = run(seed).inspect_err(|_| next.store(end, Ordering::Relaxed))?;
        all = all.and(one);
    }
}

fn summary(world: &World) -> Summary {
    let count = |length: usize| length as u64;
    Summary {
        calls: count(world.facts.origins.len()),
        attempts: count(world.facts.launches.len()),
        arrivals: world.facts.arrivals.iter().map(|arrivals| count(arrivals.len())).sum(),
        starts: count(world.facts.boots.len()),
        crashes: count(world.facts.crashes.len()),
        failed: world.facts.commits_failed,
        stalls: world.facts.stalls,
        lines: world.log.count(),
        digest: world.log.digest(),
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

impl Summary {
    /// Both together. The order does not matter.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            attempts: self.attempts + other.attempts,
            arrivals: self.arrivals + other.arrivals,
            starts: self.starts + other.starts,
            crashes: self.crashes + other.crashes,
            failed: self.failed + other.failed,
            stalls: self.stalls + other.stalls,
            lines: self.lines + other.lines,
            digest: self.digest.wrapping_add(other.digest),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, attempts, arrivals, starts, crashes, failed, stalls, lines, digest } = self;
        write!(f, "{calls} calls, {attempts} attempts, {arrivals} arrivals, {starts} starts, {crashes} crashes, ")?;
        write!(f, "{failed} failed commits, {stalls} stalls, {lines} log lines, digest {digest:016x}")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.log {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        write!(f, "replay: cargo xtask sim --seed {}", self.seed)
    }
}

impl std::error::Error for Failure {}
