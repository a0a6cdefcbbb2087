//! The simulator on itself: it is deterministic, and it finds nothing.

use farcall_sim::{Care, replay_on, run, run_many};

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

#[test]
fn a_store_that_is_careless_with_a_power_cut_is_found_out() {
    for care in [Care::Reorders, Care::Tears, Care::Forgets] {
        let caught = (0..200).find(|&seed| replay_on(care, seed, 1).is_err());
        assert!(caught.is_some(), "{care:?} goes unnoticed for 200 seeds");
    }
}
