//! Both stores answer every batch alike, valid or not, and hold the same afterwards.
//!
//! Random histories of few calls; attempt numbers follow what is stored, so that many writes are valid.

use std::collections::BTreeSet;
use std::num::NonZeroI64;

use farcall_core::attempt::AttemptOutcome;
use farcall_core::call::{ErrorKind, State, TenantId};
use farcall_store::port::{AttemptEnd, CommitError, Ended, EndedRange, GrantsAsk, LaneRange, Write};
use farcall_store::record::{CallRecord, ErrorRecord, LaneName};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::lab::{Ask as _, Lab, MemoryLab, SqliteLab};
use crate::prune::prune;
use crate::sample::{
    attempt_end, call, filed, full_call, headed, hop, id, insert_with, key, response, settle_with, start_at, steady,
    waiting,
};

const CALLS: u32 = 5;
const KEYS: [&str; 3] = ["a", "b", "c"];
const LIMIT_KEYS: [&str; 2] = ["shop", "bank"];

/// One step of a history. Attempt numbers are relative to the call's next one, so that many steps are valid.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Change>),
    Restart,
}

#[derive(Debug, Clone)]
enum Change {
    Insert {
        call: u32,
        key: Option<usize>,
        limit_key: usize,
        from_file: bool,
        waits: Option<i64>,
        large: bool,
        full: bool,
    },
    Start {
        call: u32,
        ahead: u32,
        second: i64,
    },
    Settle {
        call: u32,
        behind: Option<u32>,
        state: State,
        answer: bool,
        proved: Option<i64>,
        /// Where the call goes from then on: a limit key, and whether it is home.
        heading: Option<(usize, bool)>,
    },
    Release {
        call: u32,
        second: i64,
    },
    Filed {
        call: u32,
    },
    Prune {
        call: u32,
    },
    FreeKey {
        call: u32,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let call = 0..CALLS;
    let rarely = |odds| prop::bool::weighted(odds);
    let inserts = (call.clone(), prop::option::weighted(0.3, 0..KEYS.len()), 0..LIMIT_KEYS.len(), any::<bool>())
        .prop_flat_map(move |fields| (Just(fields), prop::option::of(0..30_i64), rarely(0.1), rarely(0.2)))
        .prop_map(|((call, key, limit_key, from_file), waits, large, full)| Change::Insert {
            call,
            key,
            limit_key,
            from_file,
            waits,
            large,
            full,
        });
    let starts = (call.clone(), prop_oneof![6 => Just(1_u32), 1 => 0..4_u32], 0..50_i64)
        .prop_map(|(call, ahead, second)| Change::Start { call, ahead, second });
    let states = prop_oneof![
        3 => Just(State::Retrying),
        1 => Just(State::Running),
        4 => prop::sample::select(State::ALL),
    ];
    let behind = prop_oneof![6 => Just(Some(0_u32)), 2 => (0..4_u32).prop_map(Some), 1 => Just(None)];
    let heading = prop::option::weighted(0.3, (0..LIMIT_KEYS.len(), any::<bool>()));
    let settles = (call.clone(), behind, states, any::<bool>(), prop::option::of(0..60_i64), heading).prop_map(
        |(call, behind, state, answer, proved, heading)| Change::Settle {
            call,
            behind,
            state,
            answer,
            proved,
            heading,
        },
    );
    let releases = (call.clone(), 0..30_i64).prop_map(|(call, second)| Change::Release { call, second });
    let files = call.clone().prop_map(|call| Change::Filed { call });
    let prunes = call.clone().prop_map(|call| Change::Prune { call });
    let frees = call.prop_map(|call| Change::FreeKey { call });
    prop_oneof![3 => inserts, 4 => starts, 4 => settles, 1 => releases, 1 => files, 1 => prunes, 1 => frees]
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    let commit = prop_oneof![5 => prop::collection::vec(change(), 1..=1), 3 => prop::collection::vec(change(), 2..=4)];
    let step = prop_oneof![12 => commit.prop_map(Step::Commit), 1 => Just(Step::Restart)];
    prop::collection::vec(step, 1..60)
}

/// The writes of a batch; `attempts` follows the number of attempts of each call through it.
fn writes(changes: &[Change], attempts: &mut [u32; CALLS as usize]) -> Vec<Write> {
    changes.iter().map(|change| write(change, attempts)).collect()
}

fn write(change: &Change, attempts: &mut [u32; CALLS as usize]) -> Write {
    match *change {
        Change::Insert { call, key: chosen, limit_key, from_file, waits, large, full } => {
            let deadline = waits.map(|second| steady(second % 5));
            let record = match waits {
                _ if full => full_call(call),
                Some(second) => CallRecord { deadline, ..waiting(call, second) },
                None => self::call(call),
            };
            attempts[call as usize] = record.attempts;
            let idempotency = chosen.map(|place| key(KEYS[place]));
            let limit_key = LIMIT_KEYS[limit_key].to_owned();
            let record = CallRecord { filed: !from_file, limit_key, idempotency, ..record };
            insert_with(record, vec![call as u8; if large { 70_000 } else { 10 }])
        }
        Change::Start { call, ahead, second } => {
            let number = attempts[call as usize] + ahead;
            attempts[call as usize] = number;
            start_at(call, number, second)
        }
        Change::Settle { call, behind, state, answer, proved, heading } => {
            let end = behind.map(|behind| AttemptEnd {
                outcome: AttemptOutcome::ALL[1 + proved.unwrap_or(0) as usize % 6],
                proved_at: proved.map(steady),
                error: proved.map(|second| ErrorRecord { kind: ErrorKind::Timeout, message: second.to_string() }),
                ..attempt_end(attempts[call as usize].saturating_sub(behind))
            });
            let answer = (answer && state.is_end()).then(|| response(format!("answer to {call}")));
            let settle = settle_with(call, end, state, answer);
            match heading {
                Some((key, is_home)) => headed(settle, LIMIT_KEYS[key], (!is_home).then(|| hop(call))),
                None => settle,
            }
        }
        Change::Release { call, second } => Write::Release { call: id(call), ready_at: steady(second) },
        Change::Filed { call } => filed(call),
        Change::Prune { call } => prune(call),
        Change::FreeKey { call } => Write::FreeKey(id(call)),
    }
}

/// The answer to a commit, in a form that can be compared.
fn answer(result: Result<(), CommitError>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}

fn failed(error: impl std::fmt::Display) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

/// Everything a reader tells of both stores is the same.
fn compare(memory: &mut dyn Lab, sqlite: &mut dyn Lab) -> Result<(), TestCaseError> {
    let (mut left, mut right) = (memory.reader().map_err(failed)?, sqlite.reader().map_err(failed)?);
    for call in (0..CALLS).map(id) {
        prop_assert_eq!(left.call(call).map_err(failed)?, right.call(call).map_err(failed)?);
        prop_assert_eq!(left.attempts(call).map_err(failed)?, right.attempts(call).map_err(failed)?);
        prop_assert_eq!(left.request(call).map_err(failed)?, right.request(call).map_err(failed)?);
        prop_assert_eq!(left.response(call).map_err(failed)?, right.response(call).map_err(failed)?);
    }
    for key in KEYS {
        prop_assert_eq!(left.keyed("", key).map_err(failed)?, right.keyed("", key).map_err(failed)?);
    }
    let states = State::ALL.iter().copied().filter(|state| state.is_end()).map(Ended::Unkeyed);
    for of in states.chain([Ended::Keyed]) {
        for (after, count) in [(None, 100), (Some((steady(102), id(2))), 2)] {
            let range = EndedRange { of, until: steady(102), after, count };
            prop_assert_eq!(left.ended(&range).map_err(failed)?, right.ended(&range).map_err(failed)?, "{:?}", range);
        }
    }
    prop_assert_eq!(left.expiring(2).map_err(failed)?, right.expiring(2).map_err(failed)?);
    let name = full_call(0).file.map(|file| file.name).unwrap_or_default();
    prop_assert_eq!(left.unfiled(&name).map_err(failed)?, right.unfiled(&name).map_err(failed)?);
    let range = |limit_key: &str| {
        let lane =
            LaneName { limit_key: limit_key.to_owned(), of_callbacks: false, priority: 3, tenant: TenantId::default() };
        LaneRange { lane, ready_at: steady(10), call: id(2), count: 3 }
    };
    let ranges = LIMIT_KEYS.map(range);
    prop_assert_eq!(left.lanes(&ranges).map_err(failed)?, right.lanes(&ranges).map_err(failed)?);
    for limit_key in LIMIT_KEYS {
        let latest = |(since, count)| GrantsAsk::Latest { since: steady(since), count };
        let sums = |(since, step)| GrantsAsk::Sums { since: steady(since), step_us: step };
        let steps = [7_000_000, 10_000_019].map(|step| NonZeroI64::new(step).expect("not zero"));
        let latest = [(0, 100), (25, 3), (40, 100), (59, 1)].map(latest);
        for ask in latest.into_iter().chain([(0, steps[0]), (30, steps[1])].map(sums)) {
            let grants = left.granted(limit_key, ask).map_err(failed)?;
            prop_assert_eq!(grants, right.granted(limit_key, ask).map_err(failed)?);
        }
    }
    Ok(())
}

fn restart(memory: &mut dyn Lab, sqlite: &mut dyn Lab) -> Result<(), TestCaseError> {
    let recovery = memory.restart().map_err(failed)?;
    prop_assert_eq!(recovery.totals.accepted, recovery.totals.calls.iter().sum::<u64>() + recovery.totals.pruned);
    prop_assert_eq!(recovery, sqlite.restart().map_err(failed)?);
    Ok(())
}

/// The number of attempts of each call, as stored.
fn attempts(lab: &mut dyn Lab) -> Result<[u32; CALLS as usize], TestCaseError> {
    let mut reader = lab.reader().map_err(failed)?;
    let mut attempts = [0; CALLS as usize];
    for (n, attempts) in (0..).zip(&mut attempts) {
        *attempts = reader.call(id(n)).map_err(failed)?.map_or(0, |call| call.attempts);
    }
    Ok(attempts)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_agree_on_every_history(history in history()) {
        let mut memory = MemoryLab::open().map_err(failed)?;
        let mut sqlite = SqliteLab::open().map_err(failed)?;
        let (memory, sqlite): (&mut dyn Lab, &mut dyn Lab) = (&mut memory, &mut sqlite);
        // No call comes again once it was pruned, as ids never do.
        let mut pruned = BTreeSet::new();
        for step in &history {
            match step {
                Step::Restart => restart(memory, sqlite)?,
                Step::Commit(changes) => {
                    let comes_again = |write: &Write| matches!(write, Write::Insert(_)) && pruned.contains(&write.call());
                    let mut batch = writes(changes, &mut attempts(memory)?);
                    batch.retain(|write| !comes_again(write));
                    let answered = answer(memory.commit(&batch));
                    prop_assert_eq!(&answered, &answer(sqlite.commit(&batch)), "{:?}", batch);
                    let prunes = batch.iter().filter(|write| answered.is_ok() && matches!(write, Write::Prune(_)));
                    pruned.extend(prunes.map(Write::call));
                }
            }
            compare(memory, sqlite)?;
        }
        restart(memory, sqlite)?;
        compare(memory, sqlite)?;
    }
}
