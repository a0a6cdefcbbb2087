//! The ids of a batch's calls: each line's follows from the batch's own, so nothing has to remember them.
//!
//! That is what makes a batch resumable: whether a line was submitted before a crash is a question to the store.

use std::fmt;
use std::str::FromStr;

use farcall_core::id::{CallId, CallIdError};
use farcall_core::time::Timestamp;

use crate::clock;

/// The low bits of an id that number its line.
const LINE_BITS: u32 = u32::BITS;

/// From lines to ids and back. Lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineIds(CallId);

impl LineIds {
    /// Those of a batch that begins now.
    pub fn of_new_batch() -> Self {
        Self::new(clock::now().timestamp, fastrand::u128(..))
    }

    /// Those of a new batch: a version 7 UUID whose last 32 of 74 random bits are the line instead.
    pub fn new(begun_at: Timestamp, chance: u128) -> Self {
        Self(CallId::new(begun_at, (chance >> LINE_BITS) << LINE_BITS))
    }

    /// The id of a line's call.
    pub const fn id(self, line: u32) -> CallId {
        CallId::from_bits(self.0.bits() | line as u128)
    }

    /// The idempotency key of a line's call, where ids are given by others.
    pub fn key(self, line: u32) -> String {
        format!("batch-{:032x}-{line}", self.0.bits())
    }

    /// The line that a call is; nothing for calls that are not of this batch.
    pub fn line(self, id: CallId) -> Option<u32> {
        let difference = id.bits() ^ self.0.bits();
        u32::try_from(difference).ok()
    }
}

impl fmt::Display for LineIds {
    /// As [`LineIds::from_str`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LineIds {
    type Err = CallIdError;

    fn from_str(text: &str) -> Result<Self, CallIdError> {
        let id: CallId = text.parse()?;
        if id.bits() & u128::from(u32::MAX) == 0 { Ok(Self(id)) } else { Err(CallIdError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_an_id_of_its_own_and_ids_sort_like_lines() {
        let ids = LineIds::new(Timestamp::from_micros(1_795_165_200_000_000), u128::MAX);
        let lines = [1, 2, 1_000_000, u32::MAX];
        assert!(lines.windows(2).all(|pair| ids.id(pair[0]) < ids.id(pair[1])));
        assert!(lines.iter().all(|&line| ids.line(ids.id(line)) == Some(line)));
        assert_eq!(ids.to_string().parse(), Ok(ids));
    }

    #[test]
    fn the_calls_of_others_are_no_lines() {
        let ids = |chance| LineIds::new(Timestamp::from_micros(1_795_165_200_000_000), chance);
        assert_eq!(ids(1 << 32).line(ids(2 << 32).id(1)), None);
        assert_eq!(ids(1 << 32), ids((1 << 32) | 7), "chance does not reach into the line");
        assert!(ids(1).id(7).to_string().parse::<LineIds>().is_err());
    }
}
