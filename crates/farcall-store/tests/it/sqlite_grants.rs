//! Attempts that SQLite has summed up: nothing counts less, or earlier, than one by one.

use std::num::NonZeroI64;

use farcall_core::call::State;
use farcall_core::steady::Steady;
use farcall_store::port::{AttemptEnd, GrantsAsk, Prune, Write};
use farcall_store::record::CallRecord;
use rusqlite::Connection;

use crate::Outcome;
use crate::lab::{Ask as _, Lab, MemoryLab, SqliteLab};
use crate::sample::{attempt_end, call, id, insert, settle_with, start_at, steady};

/// More than are summed up together.
const MANY: u32 = 5_000;
const KEYS: [&str; 3] = ["shop", "bank", "post"];

/// Calls from the n-th on, each ended by one attempt; one in three hundred goes on a second later than the one before it.
fn ended(from: u32, count: u32, second: i64) -> Vec<Write> {
    let one = |n: u32| {
        let seconds = second + i64::from(n / 300);
        let limit_key = KEYS[n as usize % KEYS.len()].to_owned();
        let proved_at = (!n.is_multiple_of(7)).then(|| Steady::from_micros(steady(seconds).as_micros() + i64::from(n)));
        let end = AttemptEnd { proved_at, ..attempt_end(1) };
        let call = CallRecord { limit_key, cost: 1 + n % 2, ..call(n) };
        [insert(call), start_at(n, 1, seconds), settle_with(n, Some(end), State::Succeeded, None)]
    };
    (from..from + count).flat_map(one).collect()
}

/// When what a limit key counts was, once for each slot, the earliest first.
fn slots(lab: &mut dyn Lab, limit_key: &str) -> Result<Vec<i64>, Box<dyn std::error::Error>> {
    let all = GrantsAsk::Latest { since: Steady::from_micros(i64::MIN), count: u32::MAX };
    let mut slots = Vec::new();
    for grant in lab.reader()?.granted(limit_key, all)? {
        let at = grant.latest_at.ok_or("nothing is out")?.as_micros();
        slots.extend(std::iter::repeat_n(at, grant.cost as usize));
    }
    slots.sort_unstable();
    Ok(slots)
}

fn commit_all(labs: &mut [&mut dyn Lab], writes: &[Write]) -> Outcome {
    for lab in labs {
        for batch in writes.chunks(600) {
            lab.commit(batch)?;
        }
    }
    Ok(())
}

/// The same slots in both, and in the second none earlier and none more than so much later.
fn check_sums(exact: &mut dyn Lab, summed: &mut dyn Lab, late_us: i64) -> Outcome {
    for key in KEYS {
        let (exact, summed) = (slots(exact, key)?, slots(summed, key)?);
        assert_eq!(exact.len(), summed.len(), "{key}");
        assert!(exact.iter().zip(&summed).all(|(exact, at)| (*exact..=exact + late_us).contains(at)), "{key}");
    }
    Ok(())
}

fn sums(lab: &SqliteLab, condition: &str) -> Result<i64, Box<dyn std::error::Error>> {
    let connection = Connection::open(lab.dir().join("farcall.db"))?;
    Ok(connection.query_row(&format!("SELECT count(*) FROM grants WHERE {condition}"), [], |row| row.get(0))?)
}

#[test]
fn sums_count_as_much_as_attempts_one_by_one_and_at_most_a_second_later() -> Outcome {
    let (mut memory, mut sqlite) = (MemoryLab::open()?, SqliteLab::open()?);
    commit_all(&mut [&mut memory, &mut sqlite], &ended(0, MANY, 0))?;
    assert!(sums(&sqlite, "true")? > 0, "some are summed up");
    check_sums(&mut memory, &mut sqlite, 1_000_000)?;
    sqlite.restart()?;
    commit_all(&mut [&mut memory, &mut sqlite], &ended(MANY, 10, 0))?;
    check_sums(&mut memory, &mut sqlite, 1_000_000)?;
    let step_us = NonZeroI64::new(1_000_000).ok_or("not zero")?;
    let asked = GrantsAsk::Sums { since: steady(0), step_us };
    let (mut memory, mut sqlite) = (memory.store().reader()?, sqlite.store().reader()?);
    assert_eq!(memory.granted("shop", asked)?, sqlite.granted("shop", asked)?);
    Ok(())
}

#[test]
fn what_pruned_calls_count_is_neither_lost_nor_counted_twice() -> Outcome {
    let (mut memory, mut sqlite) = (MemoryLab::open()?, SqliteLab::open()?);
    commit_all(&mut [&mut memory, &mut sqlite], &ended(0, MANY, 0))?;
    let prune = |n| Write::Prune(Prune { call: id(n), grants_since: Steady::from_micros(0) });
    let all: Vec<Write> = (0..MANY).map(prune).collect();
    commit_all(&mut [&mut sqlite], &all)?;
    check_sums(&mut memory, &mut sqlite, 10_000_000)?;
    // Nothing is left to tell how far attempts were numbered.
    sqlite.restart()?;
    commit_all(&mut [&mut memory, &mut sqlite], &ended(MANY, 20, 0))?;
    check_sums(&mut memory, &mut sqlite, 10_000_000)?;
    commit_all(&mut [&mut memory, &mut sqlite], &ended(2 * MANY, MANY, 0))?;
    check_sums(&mut memory, &mut sqlite, 10_000_000)
}

#[test]
fn sums_over_an_hour_old_are_summed_up_over_ten_seconds() -> Outcome {
    const TWO_HOURS: i64 = 7_200;
    let (mut memory, mut sqlite) = (MemoryLab::open()?, SqliteLab::open()?);
    commit_all(&mut [&mut memory, &mut sqlite], &ended(0, MANY, 0))?;
    let before = sums(&sqlite, "true")?;
    commit_all(&mut [&mut memory, &mut sqlite], &ended(MANY, MANY, TWO_HOURS))?;
    let old = format!("latest_at < {}", steady(TWO_HOURS).as_micros());
    let fine = sums(&sqlite, &format!("{old} AND latest_at % 10000000 <> 9999999"))?;
    assert_eq!(fine, 0);
    assert!(sums(&sqlite, &old)? < before, "fewer than the {before} that they were");
    check_sums(&mut memory, &mut sqlite, 10_000_000)
}
