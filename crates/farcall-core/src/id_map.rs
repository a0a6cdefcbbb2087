//! Maps and sets keyed by ids that we made ourselves.
//!
//! Most of an id is chance that nobody outside can choose, so that one multiplication spreads it well enough; the standard
//! hasher, which withstands chosen keys, costs ten times as much, and the path of every call hashes a dozen times. Not for
//! keys that users choose.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map by an id.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;
/// A set of ids.
pub type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// Mixes the numbers that ids are made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdHasher(u64);

/// 2^64 divided by the golden ratio, odd.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        // Both halves of the product: its low half alone would leave the low bits of a number where they are.
        let product = u128::from(self.0.rotate_left(32) ^ number) * u128::from(SPREAD);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write_u128(&mut self, number: u128) {
        self.write_u64((number >> 64) as u64);
        self.write_u64(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, Hash};

    use super::*;
    use crate::call::UpstreamId;
    use crate::id::{AttemptId, CallId};
    use crate::time::Timestamp;

    fn hash(key: impl Hash) -> u64 {
        BuildHasherDefault::<IdHasher>::default().hash_one(key)
    }

    /// The fullest of 256 buckets, by the lowest and by the highest bits, of which hash tables use both.
    fn fullest(keys: impl Iterator<Item = u64>) -> u32 {
        let (mut low, mut high) = ([0; 256], [0; 256]);
        for hash in keys {
            low[(hash & 0xff) as usize] += 1;
            high[(hash >> 56) as usize] += 1;
        }
        low.into_iter().chain(high).max().unwrap_or(0)
    }

    #[test]
    fn ids_of_one_moment_are_spread_over_a_table() {
        let mut rng = fastrand::Rng::with_seed(1);
        let at = Timestamp::from_micros(1_700_000_000_000_000);
        let mut calls = std::iter::repeat_with(|| hash(CallId::new(at, rng.u128(..)))).take(25_600);
        assert!(fullest(&mut calls) < 160, "100 each");
    }

    #[test]
    fn numbers_that_follow_one_another_are_spread_too() {
        assert!(fullest((0..25_600).map(|number| hash(UpstreamId(number)))) < 160);
        let call = CallId::from_bits(7);
        assert!(fullest((0..25_600).map(|number| hash(AttemptId { call, number }))) < 160);
    }
}
