//! What the small world stores: durable calls with nothing that not every call has, and what the others take of limits.
//!
//! Bytes and words are made up; they decide nothing.

use farcall_core::dispatcher;
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_store::port::{self, Insert, Settle, Start};
use farcall_store::record::Progress;

use super::rules::{Rules, key};
use crate::journal::{attempt_end, progress_record, record};

/// The store's form of a write.
pub(super) fn translate(rules: &Rules, now: Now, steady: SteadyClock, write: &dispatcher::Write) -> port::Write {
    use dispatcher::Write;
    match *write {
        Write::Insert { call, state, ready_at, .. } => {
            let spec = &rules.calls[&call].spec;
            let progress = Progress::waiting(state, ready_at.map(|at| steady.steady(at)));
            let limit_key = key(spec.upstream.0 as usize - 1);
            let call = record(call, spec.source, &limit_key, spec.accepted_at, progress);
            let at = steady.steady(now.instant);
            port::Write::Insert(Box::new(Insert { at, call, request: bytes::Bytes::new(), trace: None }))
        }
        Write::Start { attempt, kind, at, .. } => {
            let (started_at, granted_at) = (at.timestamp, steady.steady(at.instant));
            port::Write::Start(Start { call: attempt.call, number: attempt.number, kind, started_at, granted_at })
        }
        Write::Settle { call, attempt, progress, .. } => {
            let attempt = attempt.map(|end| attempt_end(steady, end));
            let progress = progress.map(|progress| progress_record(steady, progress));
            let at = steady.steady(now.instant);
            port::Write::Settle(Box::new(Settle { at, call, attempt, progress, heading: None, response: None }))
        }
        Write::Close { call, until } => port::Write::Close { call, until: steady.steady(until) },
        Write::Release { call, ready_at } => port::Write::Release { call, ready_at: steady.steady(ready_at) },
        Write::Grant { attempt, upstream, at, cost } => {
            let (limit_key, granted_at) = (key(upstream.0 as usize - 1), steady.steady(at.instant));
            port::Write::Grant(port::Grant { attempt, limit_key, granted_at, cost })
        }
        Write::GrantEnd { attempt, proved_at, grants_since } => port::Write::GrantEnd(port::GrantEnd {
            attempt,
            proved_at: proved_at.map(|at| steady.steady(at)),
            grants_since: steady.steady(grants_since),
        }),
        Write::GrantsLeft { proved_at } => port::Write::GrantsLeft { proved_at: steady.steady(proved_at) },
        Write::Filed { .. }
        | Write::Prune { .. }
        | Write::FreeKey { .. }
        | Write::Mark { .. }
        | Write::Upstream { .. }
        | Write::Open { .. } => unreachable!("nothing of this kind is asked for here"),
    }
}
