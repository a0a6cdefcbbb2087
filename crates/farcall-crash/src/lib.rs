//! Crash points: the named boundaries at which a test may let the program die, stop or panic.
//!
//! Whoever crosses a boundary says so with [`reach`]. In a released program that is nothing at all; with the feature
//! `armed`, which only dev-dependencies ask for, a trap set by [`set`] springs at the nth crossing of its point. The
//! points are one closed list, so that a test can match on it without a wildcard: a boundary without a test does not
//! compile. Why not a crate: `docs/design/0018-crash-points.md`.

mod point;
#[cfg(feature = "armed")]
mod trap;

pub use point::Point;

/// Whether traps are built in.
pub const IS_ARMED: bool = cfg!(feature = "armed");

/// Why a trap was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrapError {
    #[error("this program has no crash points built in")]
    NotBuiltIn,
    #[error("{0:?} is no trap; one reads `file-read@3` or `file-read=a.json:panic`")]
    Unreadable(String),
    #[error("no crash point is called {0:?}")]
    UnknownPoint(String),
    #[error("a trap is set already")]
    SecondTrap,
}

/// A boundary is crossed.
#[cfg(not(feature = "armed"))]
#[inline]
pub const fn reach(_: Point) {}

/// A boundary is crossed: the end, when a trap says so.
#[cfg(feature = "armed")]
pub fn reach(point: Point) {
    trap::reach(point);
}

/// A boundary is crossed with something of this name.
#[cfg(not(feature = "armed"))]
#[inline]
pub const fn reach_at(_: Point, _: &[u8]) {}

/// A boundary is crossed with something of this name: the end, when a trap says so.
#[cfg(feature = "armed")]
pub fn reach_at(point: Point, name: &[u8]) {
    trap::reach_at(point, name);
}

/// Sets the one trap of this process: `POINT@NTH`, or `POINT=NAME` for whenever it is crossed with that name, with `:stop` or `:panic` behind it to stop the process (SIGSTOP) or
/// the thread (a panic) in place of dying by SIGKILL.
///
/// # Errors
/// When there are no traps in this program, when the words mean none, or when one is set already.
pub fn set(words: &str) -> Result<(), TrapError> {
    #[cfg(feature = "armed")]
    return trap::set(words);
    #[cfg(not(feature = "armed"))]
    {
        let _ = words;
        Err(TrapError::NotBuiltIn)
    }
}
