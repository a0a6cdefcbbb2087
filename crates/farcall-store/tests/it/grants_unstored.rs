//! Grants of calls that are not stored: they count like all others, and nothing else is known of them.

use farcall_core::id::AttemptId;
use farcall_core::steady::Steady;
use farcall_store::port::{CommitError, Grant, GrantEnd, GrantsAsk, Write};
use farcall_store::record::GrantRecord;

use crate::lab::{Ask as _, Lab};
use crate::sample::{call, id, insert, start_at, steady};
use crate::{Outcome, for_each_store};

for_each_store! {
    a_grant_is_open_until_its_end_and_then_counts_from_the_later_of_grant_and_proof,
    an_attempt_that_sent_nothing_counts_for_nothing,
    what_a_process_left_behind_counts_from_when_it_is_taken_over,
    a_second_grant_and_an_end_without_one_are_refused,
    old_ones_may_go,
}

fn attempt(n: u32, number: u32) -> AttemptId {
    AttemptId { call: id(n), number }
}

pub(crate) fn grant(n: u32, number: u32, limit_key: &str, granted_at: i64) -> Write {
    let (attempt, limit_key) = (attempt(n, number), limit_key.to_owned());
    Write::Grant(Grant { attempt, limit_key, granted_at: steady(granted_at), cost: n + 1 })
}

pub(crate) fn grant_end(n: u32, number: u32, proved_at: Option<i64>) -> Write {
    let (attempt, grants_since) = (attempt(n, number), Steady::from_micros(i64::MIN));
    Write::GrantEnd(GrantEnd { attempt, proved_at: proved_at.map(steady), grants_since })
}

fn granted(lab: &mut dyn Lab, key: &str) -> Result<Vec<GrantRecord>, Box<dyn std::error::Error>> {
    let ask = GrantsAsk::Latest { since: Steady::from_micros(i64::MIN), count: 10 };
    Ok(lab.reader()?.granted(key, ask)?)
}

fn open(n: u32, number: u32) -> GrantRecord {
    GrantRecord { open: Some(attempt(n, number)), latest_at: None, cost: n + 1 }
}

/// It ended, and counts from the end of its second.
fn ended(cost: u32, at: i64) -> GrantRecord {
    let second = steady(at).as_micros() / 1_000_000;
    GrantRecord { open: None, latest_at: Some(Steady::from_micros(second * 1_000_000 + 999_999)), cost }
}

fn a_grant_is_open_until_its_end_and_then_counts_from_the_later_of_grant_and_proof(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[grant(1, 1, "shop", 10), grant(1, 2, "shop", 30), grant(2, 1, "shop", 20), grant(3, 1, "bank", 5)])?;
    lab.commit(&[insert(call(7)), start_at(7, 1, 1)])?;
    let stored = GrantRecord { open: Some(attempt(7, 1)), latest_at: None, cost: call(7).cost };
    assert_eq!(granted(lab, "shop")?, [stored, open(1, 2), open(2, 1), open(1, 1)]);
    lab.commit(&[grant_end(1, 1, Some(40)), grant_end(2, 1, Some(1))])?;
    assert_eq!(granted(lab, "shop")?, [stored, open(1, 2), ended(2, 40), ended(3, 20)]);
    assert_eq!(granted(lab, "bank")?, [open(3, 1)]);
    assert_eq!(lab.restart()?.open_grants, 2);
    assert_eq!(granted(lab, "shop")?, [stored, open(1, 2), ended(2, 40), ended(3, 20)]);
    Ok(())
}

fn an_attempt_that_sent_nothing_counts_for_nothing(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[grant(1, 1, "shop", 10), grant_end(1, 1, None)])?;
    assert_eq!((granted(lab, "shop")?, lab.restart()?.open_grants), (vec![], 0));
    Ok(())
}

fn what_a_process_left_behind_counts_from_when_it_is_taken_over(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[grant(1, 1, "shop", 10), grant(2, 1, "shop", 20), grant(3, 1, "bank", 900)])?;
    assert_eq!(lab.restart()?.open_grants, 3);
    lab.commit(&[Write::GrantsLeft { proved_at: steady(500) }])?;
    assert_eq!(granted(lab, "shop")?, [ended(5, 500)]);
    assert_eq!(granted(lab, "bank")?, [ended(4, 900)]);
    assert_eq!(lab.restart()?.open_grants, 0);
    Ok(())
}

fn a_second_grant_and_an_end_without_one_are_refused(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[grant(1, 1, "shop", 10)])?;
    let refused = |lab: &mut dyn Lab, write: Write| {
        // All or nothing: what stands beside it is refused too.
        let batch = [grant(5, 1, "shop", 50), write];
        matches!(lab.commit(&batch), Err(CommitError::Conflict { call, .. }) if call == id(1))
    };
    assert!(refused(lab, grant(1, 1, "bank", 20)));
    assert!(refused(lab, grant_end(1, 2, Some(30))));
    assert_eq!(granted(lab, "shop")?, [open(1, 1)]);
    lab.commit(&[grant_end(1, 1, Some(30))])?;
    assert!(refused(lab, grant_end(1, 1, Some(30))));
    assert_eq!(granted(lab, "shop")?, [ended(2, 30)]);
    Ok(())
}

fn old_ones_may_go(lab: &mut dyn Lab) -> Outcome {
    lab.commit(&[grant(1, 1, "shop", 10), grant(2, 1, "shop", 100)])?;
    lab.commit(&[grant_end(1, 1, Some(11))])?;
    let grants_since = steady(50);
    let end = GrantEnd { attempt: attempt(2, 1), proved_at: Some(steady(101)), grants_since };
    lab.commit(&[Write::GrantEnd(end)])?;
    assert_eq!(granted(lab, "shop")?, [ended(3, 101)]);
    Ok(())
}
