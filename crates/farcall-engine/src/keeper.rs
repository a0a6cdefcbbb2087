//! The keeper's thread: removes the files of calls and rejected files that `inbox.keep` says are old enough, and at the
//! start what a crash left half written.
//!
//! It looks through the folders now and then, a few names at a time, and rests as long as each step took, so that a
//! folder of a million files holds up nobody. Old is what both clocks call old: the wall clock, by which file systems
//! count, and steady time, which no jump moves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use farcall_core::id::CallId;
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_store::port::{ReadError, Reader};

use crate::cause::chain;
use crate::clock;
use crate::config::Live;
use crate::result_file::{FileError, Filing, OldFiles, Removed};

/// Names looked at in one step.
const STEP_NAMES: usize = 128;
/// The same where only names are looked at.
const SWEEP_NAMES: usize = 1_024;
/// How often the folders are looked through: an eighth of the age, within these.
const LOOK_MIN: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(3_600);
/// When nothing is removed, how long until the configuration is looked at again; a changed one wakes it at once.
const IDLE: Duration = Duration::from_secs(3_600);

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What the thread works with.
pub(crate) struct Keeping {
    pub(crate) filing: Arc<Filing>,
    pub(crate) reader: Box<dyn Reader>,
    pub(crate) config: Live,
    pub(crate) steady: SteadyClock,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    is_woken: bool,
    is_closed: bool,
}

/// Why a look was broken off.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("looking for old files broke down")]
    BrokeDown,
}

impl Keeper {
    pub(crate) fn start(mut keeping: Keeping) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let run = move || keeping.run(&own);
        let thread = std::thread::Builder::new().name("farcall-keeper".to_owned()).spawn(run)?;
        Ok(Self { shared, thread })
    }

    /// The configuration has changed.
    pub(crate) fn wake(&self) {
        self.shared.change(|state| state.is_woken = true);
    }

    /// Ends the thread after the step at hand. Blocks.
    pub(crate) fn close(self) {
        self.shared.change(|state| state.is_closed = true);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Keeping {
    fn run(&mut self, shared: &Shared) {
        self.sweep(shared);
        let mut is_told = false;
        loop {
            let keep = self.config.now().inbox.keep;
            let wait = keep.map_or(IDLE, |keep| (keep / 8).clamp(LOOK_MIN, LOOK_MAX));
            if !shared.wait(wait) {
                return;
            }
            let Some(keep) = self.config.now().inbox.keep else { continue };
            let looked = catch_unwind(AssertUnwindSafe(|| self.look_through(keep, shared)));
            match looked.unwrap_or(Err(KeepError::BrokeDown)) {
                Ok(removed) => {
                    is_told = false;
                    if removed > 0 {
                        tracing::info!(files = removed, "removed files that were kept long enough");
                    }
                }
                // Said once, until it works again.
                Err(error) if !is_told => {
                    is_told = true;
                    tracing::warn!(error = chain(&error), "cannot remove old files, trying again");
                }
                Err(_) => {}
            }
        }
    }

    /// Nobody sees what is left half written, so a start does not wait for it.
    fn sweep(&self, shared: &Shared) {
        let mut begun = clock::instant();
        let goes_on = || {
            let goes_on = shared.pause(clock::instant().since(begun));
            begun = clock::instant();
            goes_on
        };
        let swept = catch_unwind(AssertUnwindSafe(|| self.filing.sweep(SWEEP_NAMES, goes_on)));
        if let Err(error) = swept.map_err(|_| KeepError::BrokeDown).and_then(|swept| Ok(swept?)) {
            tracing::warn!(error = chain(&error), "cannot remove what a crash left half written");
        }
    }

    /// Looks through all folders; gives the number of files that were removed.
    fn look_through(&mut self, keep: Duration, shared: &Shared) -> Result<usize, KeepError> {
        let before_ns = old_before_ns(clock::now(), self.steady, keep);
        let mut old_files = self.filing.old_files()?;
        let mut removed = 0;
        loop {
            let begun = clock::instant();
            let step = self.step(&mut old_files, before_ns)?;
            removed += step.files;
            if step.is_over || !shared.pause(clock::instant().since(begun)) {
                return Ok(removed);
            }
        }
    }

    fn step(&mut self, old_files: &mut OldFiles, before_ns: i64) -> Result<Removed, KeepError> {
        let reader = &mut self.reader;
        let is_unfiled =
            |call: CallId| -> Result<bool, KeepError> { Ok(reader.call(call)?.is_some_and(|record| !record.filed)) };
        old_files.go_on(&self.filing, (STEP_NAMES, before_ns), is_unfiled)
    }
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    /// Waits, shorter when it is woken; false when it is to end.
    fn wait(&self, wait: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_left_alone = |state: &mut State| !state.is_woken && !state.is_closed;
        let waited = self.changed.wait_timeout_while(state, wait, is_left_alone);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.is_woken = false;
        !state.is_closed
    }

    /// Waits whether or not it is woken; false when it is to end.
    fn pause(&self, wait: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, wait, |state| !state.is_closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }
}

/// Files that were last changed before are old, by the clock that says so later.
fn old_before_ns(now: Now, steady: SteadyClock, keep: Duration) -> i64 {
    let now_us = now.timestamp.as_micros().min(steady.steady(now.instant).as_micros());
    let keep_ns = i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX);
    now_us.saturating_mul(1_000).saturating_sub(keep_ns)
}

#[cfg(test)]
mod tests {
    use farcall_core::time::{Instant, Timestamp};

    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_makes_nothing_old() {
        let at = |boot_s: i64, wall_s: i64| Now {
            instant: Instant::from_micros(boot_s * 1_000_000),
            timestamp: Timestamp::from_micros(wall_s * 1_000_000),
        };
        let steady = SteadyClock::go_on(None, None, Some("a"), at(100, 10_000));
        let before_s = |now| old_before_ns(now, steady, Duration::from_secs(50)) / 1_000_000_000;
        assert_eq!(before_s(at(160, 10_060)), 10_010);
        assert_eq!(before_s(at(160, 9_000_000)), 10_010, "forward: steady time holds");
        assert_eq!(before_s(at(160, 5_000)), 4_950, "back: what was written since is younger still");
    }
}
