//! From what the dispatcher decided to what the store keeps: the decision's numbers, the report's words and bytes.
//!
//! Nothing is decided here.

use farcall_core::attempt::AttemptOutcome;
use farcall_core::call::{ErrorKind, UpstreamId};
use farcall_core::dispatcher::{AttemptEnd, Progress, Write};
use farcall_core::hop::{Heading, Hop};
use farcall_core::id::{AttemptId, CallId};
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_store::port;
use farcall_store::record::{self, ErrorRecord, HopRecord};

use super::Run;
use super::announce::Settled;
use crate::execute::Report;
use crate::redirect::Asked;
use crate::upstreams::{Serves, declared_name, limit_key};

impl Run {
    /// `now` is the moment of the turn that decided it.
    pub(super) fn translate(&mut self, write: &Write, now: Now) -> port::Write {
        match *write {
            Write::Insert { call, state, ready_at, callback } => {
                let mut insert = match (self.pending.inserts.remove(&call), callback) {
                    (Some(insert), _) => insert,
                    (None, callback) => {
                        self.callback_insert(now, call, callback.expect("an offered call has its insert"))
                    }
                };
                insert.call.progress = record::Progress::waiting(state, ready_at.map(|at| self.steady.steady(at)));
                self.see_insert(&insert);
                port::Write::Insert(insert)
            }
            Write::Start { attempt, kind, at, .. } => {
                let start = port::Start {
                    call: attempt.call,
                    number: attempt.number,
                    kind,
                    started_at: at.timestamp,
                    granted_at: self.steady.steady(at.instant),
                };
                self.see_start(&start);
                port::Write::Start(start)
            }
            Write::Settle { call, upstream, attempt, progress } => {
                if let Some(kept) = self.pending.kept.remove(&(call, attempt.map(|end| end.number))) {
                    return port::Write::Settle(kept);
                }
                let trace_id = self.trace_of(call, attempt);
                let settle = self.settle(now, (call, upstream), attempt, progress);
                self.note(now, upstream, &settle, trace_id);
                port::Write::Settle(Box::new(settle))
            }
            Write::Close { call, until } => port::Write::Close { call, until: self.steady.steady(until) },
            Write::Release { call, ready_at } => port::Write::Release { call, ready_at: self.steady.steady(ready_at) },
            Write::Filed { call } => port::Write::Filed(call),
            Write::Mark { call, mark } => port::Write::Mark { call, mark },
            Write::Prune { call, state: _, grants_since } => {
                port::Write::Prune(port::Prune { call, grants_since: self.steady.steady(grants_since) })
            }
            Write::FreeKey { call } => port::Write::FreeKey(call),
            Write::Upstream { upstream } => port::Write::Upstream(Box::new(self.upstream_record(upstream))),
            Write::Open { upstream } => port::Write::Open { limit_key: self.upstream_record(upstream).limit_key },
        }
    }

    /// The trace in which the attempt was made, or the call would have been tried: told, or its own.
    fn trace_of(&self, call: CallId, attempt: Option<AttemptEnd>) -> Option<u128> {
        let told = match attempt.map(|end| AttemptId { call, number: end.number }) {
            Some(attempt) => self.pending.reports.get(&attempt)?.trace.clone(),
            None => self.documents.get(call)?.document.trace.clone(),
        };
        Some(told.map_or(call.bits(), |trace| trace.trace_id()))
    }

    fn settle(
        &mut self,
        now: Now,
        (call, upstream): (CallId, UpstreamId),
        attempt: Option<AttemptEnd>,
        progress: Option<Progress>,
    ) -> port::Settle {
        let attempted = attempt.map(|end| AttemptId { call, number: end.number });
        let report = attempted.and_then(|id| self.pending.reports.remove(&id));
        let asked = attempted.and_then(|id| self.pending.redirects.remove(&id));
        let heading = progress.and_then(|progress| progress.heading);
        let heading = heading.map(|heading| self.stored_heading(heading, upstream, asked));
        let has_ended = progress.is_some_and(|progress| progress.state.is_end());
        let message = report.as_ref().and_then(|report| report.message.clone());
        let progress = progress.map(|progress| stored_progress(progress, self.steady, message.as_deref()));
        let attempt = attempt.map(|end| port::AttemptEnd {
            number: end.number,
            outcome: end.outcome,
            status: end.status.or_else(|| answered_status(report.as_deref())),
            proved_at: end.proved_at.map(|at| self.steady.steady(at)),
            ended_at: end.ended_at,
            error: end.error.map(|kind| error(kind, message.as_deref(), end.status, Some(end.outcome))),
        });
        let response = report.and_then(|report| report.response).filter(|_| has_ended);
        port::Settle { at: self.steady.steady(now.instant), call, attempt, progress, heading, response }
    }
}

impl Run {
    /// Where a call goes; `asked` is the request that the answer asked for, and `home` the call's own upstream.
    fn stored_heading(&self, heading: Heading, home: UpstreamId, asked: Option<Box<Asked>>) -> port::Heading {
        let known =
            |id| self.upstreams.get(id).expect("a call that follows redirects goes to upstreams that are known");
        let home_key = limit_key(&known(home).reference).to_owned();
        let Heading::Hop(Hop { upstream, count, .. }) = heading else {
            return port::Heading { limit_key: home_key, hop: None };
        };
        let asked = asked.expect("a hop is decided on the report that asks for it");
        let reference = &known(upstream).reference;
        let hop = HopRecord {
            url: asked.url.into(),
            method: asked.method.as_str().to_owned(),
            count,
            upstream: declared_name(reference),
            has_body: asked.has_body,
            is_elsewhere: asked.is_elsewhere,
            home_key,
        };
        port::Heading { limit_key: limit_key(reference).to_owned(), hop: Some(hop) }
    }

    /// Counts a settlement, and says it aloud when it is no good news.
    fn note(&mut self, now: Now, upstream: UpstreamId, settle: &port::Settle, trace_id: Option<u128>) {
        let Some(progress) = &settle.progress else { return };
        if progress.state.is_end() {
            self.stats.note_end(upstream, progress.state);
        }
        let calls = self.upstreams.get(upstream).filter(|known| known.serves == Serves::Calls);
        let name = calls.map_or("callback", |known| limit_key(&known.reference));
        let outcome = settle.attempt.as_ref().map(|end| end.outcome);
        let waits_until = progress.ready_at.map(|at| now.timestamp_of(self.steady.instant(at)));
        let settled = Settled { call: settle.call, upstream: name, outcome, progress, waits_until, trace_id };
        self.announcer.settled(now.instant, &settled);
    }
}

/// An answer whose body broke off still had a status.
fn answered_status(report: Option<&Report>) -> Option<u16> {
    report.and_then(|report| report.result.status)
}

fn stored_progress(progress: Progress, steady: SteadyClock, message: Option<&str>) -> record::Progress {
    record::Progress {
        state: progress.state,
        ready_at: progress.ready_at.map(|at| steady.steady(at)),
        retries: progress.tries.retries,
        requeues: progress.tries.requeues,
        throttles: progress.tries.throttles,
        deaths: progress.tries.deaths,
        orphaned: progress.tries.orphaned,
        finished_at: progress.finished_at,
        status: progress.status,
        error: progress.error.map(|kind| error(kind, message, progress.status, None)),
    }
}

/// What went wrong with a call that has no answer, for whoever waited for it.
pub(super) fn error_message(kind: ErrorKind, message: Option<&str>) -> String {
    error(kind, message, None, None).message
}

/// The error as users read it: what the executor said, else what the kind means.
fn error(kind: ErrorKind, message: Option<&str>, status: Option<u16>, outcome: Option<AttemptOutcome>) -> ErrorRecord {
    let message = match (kind, status, message) {
        (ErrorKind::RetryAfterTooLong, _, _) => "the upstream asks to wait longer than retry_after_max".to_owned(),
        (ErrorKind::BlockedAddress, Some(_), _) => {
            "the answer redirects from https to http, which is refused".to_owned()
        }
        (ErrorKind::Deadline, _, _) => "the deadline passed".to_owned(),
        (ErrorKind::Timeout, _, _) => "no complete answer within the timeout".to_owned(),
        (_, _, Some(message)) => message.to_owned(),
        (ErrorKind::HttpStatus, Some(status), None) => format!("the upstream answered {status}"),
        (ErrorKind::Unknown, _, None) => "farcall stopped while the attempt was out".to_owned(),
        (ErrorKind::Reset, _, None) if outcome.is_none() || outcome == Some(AttemptOutcome::Unknown) => {
            "cut off when farcall was stopped".to_owned()
        }
        (kind, _, None) => kind.as_str().replace('_', " "),
    };
    ErrorRecord { kind, message }
}
