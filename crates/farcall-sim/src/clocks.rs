//! The machine's clocks. Its boot clock is the true time of a run; its wall clock is put forward and back by faults.
//!
//! The process sees both, and in which boot it runs. Steady time is what it makes of them; checks that ask for durations
//! over starts count in it, those of what an upstream saw in true time.

use farcall_core::steady::{KeptClock, Steady, SteadyClock};
use farcall_core::time::{Instant, Now, Timestamp};

/// The clocks as they are now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    /// The wall clock shows this much more than the boot clock.
    wall_ahead_us: i64,
    boot: u32,
    /// Of the present start, or the last one.
    steady: SteadyClock,
}

impl Clocks {
    /// Before the first start.
    pub(crate) fn new(start: Instant, wall_ahead_us: i64) -> Self {
        let now = now(start, wall_ahead_us);
        Self { wall_ahead_us, boot: 0, steady: SteadyClock::go_on(None, None, None, now) }
    }

    /// Both clocks at a moment of the true time.
    pub(crate) fn now(&self, at: Instant) -> Now {
        now(at, self.wall_ahead_us)
    }

    /// Somebody sets the wall clock: forward, or back.
    pub(crate) fn jump(&mut self, by_us: i64) {
        self.wall_ahead_us += by_us;
    }

    /// The machine starts anew, with its wall clock off by this much from where steady time would go on.
    pub(crate) fn reboot(&mut self, off_by_us: i64) {
        self.boot += 1;
        let steady = self.steady.steady(Instant::from_micros(0)).as_micros();
        self.wall_ahead_us = steady + off_by_us;
    }

    /// The process starts on what a store kept; what the store is to keep from now on.
    pub(crate) fn go_on(&mut self, kept: Option<&KeptClock>, latest: Option<Steady>, at: Instant) -> KeptClock {
        let boot = self.boot.to_string();
        self.steady = SteadyClock::go_on(kept, latest, Some(&boot), self.now(at));
        self.steady.keep(Some(&boot))
    }

    /// How the process stores instants.
    pub(crate) const fn process(&self) -> SteadyClock {
        self.steady
    }

    pub(crate) const fn steady(&self, at: Instant) -> Steady {
        self.steady.steady(at)
    }

    /// Where stored steady time lies for the process that runs.
    pub(crate) const fn instant(&self, steady: Steady) -> Instant {
        self.steady.instant(steady)
    }
}

fn now(at: Instant, wall_ahead_us: i64) -> Now {
    Now { instant: at, timestamp: Timestamp::from_micros(at.as_micros().saturating_add(wall_ahead_us)) }
}
