//! The simulator on itself: it is deterministic, and it finds nothing.

use farcall_sim::{run, run_many};

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn a_hundred_seeds_keep_every_promise() {
    if let Err(failure) = run_many(0, 100) {
        panic!("{failure}");
    }
}
