//! Grants: the attempts that hold a limit's slots longest, first.
//!
//! The samples give each call its own cost, so that an answer can be told by its costs alone.

use std::num::NonZeroI64;

use farcall_core::call::State;
use farcall_core::id::AttemptId;
use farcall_core::steady::Steady;
use farcall_store::port::{AttemptEnd, GrantsAsk, Write};
use farcall_store::record::{CallRecord, GrantRecord};

use crate::lab::{Ask as _, Lab};
use crate::sample::{at, attempt_end, call, headed, hop, id, insert, settle_with, start_at, steady};
use crate::{Outcome, for_each_store};

for_each_store! {
    open_attempts_come_first_then_the_latest_start_or_proof,
    an_attempt_counts_from_since_by_start_or_by_proof,
    attempts_of_ended_calls_and_of_retries_count,
    other_limit_keys_do_not_count,
    an_attempt_counts_where_its_call_went_then,
    a_closing_is_that_of_where_the_call_went,
    a_count_bounds_the_answer,
    attempts_that_sent_nothing_take_no_place,
    sums_count_from_the_end_of_their_time,
    the_latest_closing_of_a_limit_key_is_kept,
}

fn the_latest_closing_of_a_limit_key_is_kept(lab: &mut dyn Lab) -> Outcome {
    let close = |n, until| Write::Close { call: id(n), until: steady(until) };
    lab.commit(&[insert(call(1)), insert(call(2)), close(1, 500)])?;
    lab.commit(&[close(2, 900), close(1, 700)])?;
    assert!(lab.commit(&[close(1, 5_000), close(3, 6_000)]).is_err(), "a closing of an unknown call is refused");
    lab.restart()?;
    let mut reader = lab.reader()?;
    assert_eq!(reader.closed_until(&call(1).limit_key)?, Some(steady(900)));
    assert_eq!(reader.closed_until("another")?, None);
    Ok(())
}

/// Inserts and starts a call of limit key `shop` and cost n.
fn begin(n: u32, granted_at: i64) -> [Write; 2] {
    [insert(CallRecord { cost: n, ..call(n) }), start_at(n, 1, granted_at)]
}

fn end(n: u32, number: u32, proved_at: Option<i64>, state: State) -> Write {
    let end = AttemptEnd { proved_at: proved_at.map(steady), ended_at: at(1_000), ..attempt_end(number) };
    settle_with(n, Some(end), state, None)
}

fn costs(lab: &mut dyn Lab, since: Steady, count: u32) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    Ok(latest(lab, since, count)?.iter().map(|grant| grant.cost).collect())
}

fn latest(lab: &mut dyn Lab, since: Steady, count: u32) -> Result<Vec<GrantRecord>, Box<dyn std::error::Error>> {
    Ok(lab.reader()?.granted("shop", GrantsAsk::Latest { since, count })?)
}

fn open_attempts_come_first_then_the_latest_start_or_proof(lab: &mut dyn Lab) -> Outcome {
    for (n, granted_at) in [(1, 10), (2, 20), (3, 30), (4, 40), (5, 5), (6, 50)] {
        lab.commit(&begin(n, granted_at))?;
    }
    lab.commit(&[end(1, 1, Some(45), State::Succeeded), end(2, 1, Some(21), State::Succeeded)])?;
    lab.commit(&[end(3, 1, None, State::Failed), end(6, 1, Some(1), State::Succeeded)])?;
    // Open are 4 and 5; then 6 (by its start), 1 (by its proof) and 2; 3 sent nothing.
    assert_eq!(costs(lab, steady(0), 10)?, [4, 5, 6, 1, 2]);
    lab.restart()?;
    assert_eq!(costs(lab, steady(0), 10)?, [4, 5, 6, 1, 2]);
    let grants = latest(lab, steady(0), 2)?;
    let open = GrantRecord { open: Some(AttemptId { call: id(4), number: 1 }), latest_at: None, cost: 4 };
    let ended = GrantRecord { open: None, latest_at: Some(steady(45)), cost: 1 };
    assert_eq!((grants[0], grants[3]), (open, ended));
    Ok(())
}

fn an_attempt_counts_from_since_by_start_or_by_proof(lab: &mut dyn Lab) -> Outcome {
    for (n, granted_at) in [(1, 100), (2, 99), (3, 99), (4, 99), (5, 1)] {
        lab.commit(&begin(n, granted_at))?;
    }
    lab.commit(&[end(1, 1, Some(99), State::Failed), end(2, 1, Some(98), State::Failed)])?;
    lab.commit(&[end(3, 1, Some(100), State::Failed), end(4, 1, Some(99), State::Failed)])?;
    assert_eq!(costs(lab, steady(100), 10)?, [5, 3, 1]);
    assert_eq!(costs(lab, steady(101), 10)?, [5]);
    assert_eq!(costs(lab, Steady::from_micros(i64::MIN), 10)?.len(), 5);
    Ok(())
}

fn attempts_of_ended_calls_and_of_retries_count(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&begin(1, 10))?;
    lab.commit(&[end(1, 1, Some(11), State::Retrying)])?;
    lab.commit(&[start_at(1, 2, 20), start_at(1, 3, 20)])?;
    lab.commit(&[end(1, 2, Some(21), State::Succeeded)])?;
    let grants: Vec<_> =
        latest(lab, steady(0), 10)?.iter().map(|grant| (grant.open.map(|open| open.number), grant.latest_at)).collect();
    assert_eq!(grants, [(Some(3), None), (None, Some(steady(21))), (None, Some(steady(11)))]);
    Ok(())
}

fn other_limit_keys_do_not_count(lab: &mut dyn Lab) -> Outcome {
    for (n, limit_key) in [(1, "shop"), (2, "Shop"), (3, "shop "), (4, ""), (5, "shop")] {
        let call = CallRecord { limit_key: limit_key.to_owned(), cost: n, ..call(n) };
        lab.commit(&[insert(call), start_at(n, 1, 1)])?;
    }
    lab.commit(&[end(1, 1, Some(2), State::Succeeded), end(2, 1, Some(2), State::Succeeded)])?;
    assert_eq!(costs(lab, steady(0), 10)?, [5, 1]);
    let all = GrantsAsk::Latest { since: steady(0), count: 10 };
    assert_eq!(lab.reader()?.granted("none", all)?, []);
    assert_eq!(lab.reader()?.granted("", all)?.len(), 1);
    Ok(())
}

fn an_attempt_counts_where_its_call_went_then(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&begin(1, 10))?;
    let on = headed(end(1, 1, Some(11), State::Retrying), "bank", Some(hop(1)));
    lab.commit(&[on, start_at(1, 2, 20)])?;
    let open = |lab: &mut dyn Lab, key: &str| -> Result<Vec<Option<u32>>, Box<dyn std::error::Error>> {
        let grants = lab.reader()?.granted(key, GrantsAsk::Latest { since: steady(0), count: 10 })?;
        Ok(grants.iter().map(|grant| grant.open.map(|open| open.number)).collect())
    };
    assert_eq!((open(lab, "shop")?, open(lab, "bank")?), (vec![None], vec![Some(2)]));
    lab.restart()?;
    assert_eq!((open(lab, "shop")?, open(lab, "bank")?), (vec![None], vec![Some(2)]));
    let home = headed(end(1, 2, Some(21), State::Retrying), "shop", None);
    lab.commit(&[home, start_at(1, 3, 30)])?;
    assert_eq!((open(lab, "shop")?, open(lab, "bank")?), (vec![Some(3), None], vec![None]));
    Ok(())
}

fn a_closing_is_that_of_where_the_call_went(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&begin(1, 10))?;
    lab.commit(&[headed(end(1, 1, Some(11), State::Retrying), "bank", Some(hop(1))), start_at(1, 2, 20)])?;
    let close = Write::Close { call: id(1), until: steady(90) };
    lab.commit(&[close, headed(end(1, 2, Some(21), State::Retrying), "shop", None)])?;
    lab.restart()?;
    let mut reader = lab.reader()?;
    assert_eq!((reader.closed_until("shop")?, reader.closed_until("bank")?), (None, Some(steady(90))));
    Ok(())
}

/// An upstream that cannot be reached must not push what was sent out of the answer.
fn attempts_that_sent_nothing_take_no_place(lab: &mut dyn Lab) -> Outcome {
    for n in 1..=9 {
        lab.commit(&begin(n, i64::from(n)))?;
        let proved_at = (n <= 2).then_some(i64::from(n));
        lab.commit(&[end(n, 1, proved_at, State::Failed)])?;
    }
    assert_eq!(costs(lab, steady(0), 2)?, [2, 1]);
    Ok(())
}

fn a_count_bounds_the_answer(lab: &mut dyn Lab) -> Outcome {
    for n in 1..=6 {
        lab.commit(&begin(n, i64::from(n)))?;
    }
    for n in [1, 3, 5] {
        lab.commit(&[end(n, 1, Some(7), State::Succeeded)])?;
    }
    let all = [6, 4, 2, 5, 3, 1];
    for count in 0..=3 {
        assert_eq!(costs(lab, steady(0), count)?, all[..3 + count as usize], "all that are open, and {count}");
    }
    assert_eq!(costs(lab, steady(0), u32::MAX)?, all);
    Ok(())
}

fn sums_count_from_the_end_of_their_time(lab: &mut dyn Lab) -> Outcome {
    for (n, granted_at) in [(1, 0), (2, 10), (3, 30), (4, 40), (5, 50), (6, 60), (7, 70)] {
        lab.commit(&begin(n, granted_at))?;
    }
    let proved = |n, at| end(n, 1, Some(at), State::Succeeded);
    lab.commit(&[proved(1, 99), proved(2, 100), proved(3, 199), proved(4, 200), end(5, 1, None, State::Failed)])?;
    let mut sums = |since| -> Result<Vec<GrantRecord>, Box<dyn std::error::Error>> {
        let step_us = NonZeroI64::new(100_000_000).ok_or("not zero")?;
        Ok(lab.reader()?.granted("shop", GrantsAsk::Sums { since: steady(since), step_us })?)
    };
    let open = |n| GrantRecord { open: Some(AttemptId { call: id(n), number: 1 }), latest_at: None, cost: n };
    let sum = |end, cost| {
        let latest_at = Some(Steady::from_micros(steady(end).as_micros() - 1));
        GrantRecord { open: None, latest_at, cost }
    };
    assert_eq!(sums(-500)?, [open(7), open(6), sum(300, 4), sum(200, 5), sum(100, 1)]);
    assert_eq!(sums(150)?, [open(7), open(6), sum(300, 4), sum(200, 3)]);
    Ok(())
}
