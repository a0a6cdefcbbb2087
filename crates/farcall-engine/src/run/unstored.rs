//! What is told of calls that somebody waits for: to those who follow what happens, and to those who ask while one runs.
//!
//! It is true at once, and known nowhere else: once such a call has ended, nobody can ask for it.

use std::sync::Arc;

use farcall_core::call::UpstreamId;
use farcall_core::dispatcher::{Standing, Write};
use farcall_core::id::CallId;
use farcall_core::time::{Now, Timestamp};
use farcall_store::record::{CallRecord, Progress};

use super::Run;
use crate::forward::Request;
use crate::upstreams::declared_name;
use crate::watch::{CallEvent, Happened};

/// A call that somebody waits for, what it came as, and where it stands.
pub(crate) type Guest = (CallRecord, Arc<Request>, Standing);

impl Run {
    /// What those who follow calls hear of a decision that is not stored.
    pub(super) fn follow_unstored(&self, write: &Write, now: Now) {
        if !self.watchers.events.is_followed() {
            return;
        }
        let name = |id: UpstreamId| self.upstreams.get(id).and_then(|known| declared_name(&known.reference));
        let (call, upstream, what) = match *write {
            Write::Insert { call, state, .. } => {
                let request = self.forwards.request(call);
                (call, request.map(|request| request.upstream.clone()), Happened::Accepted { state })
            }
            Write::Start { attempt, upstream, .. } => {
                (attempt.call, name(upstream), Happened::Started { attempt: attempt.number })
            }
            Write::Settle { call, upstream, progress: Some(progress), .. } => {
                let (state, status, error) = (progress.state, progress.status, progress.error);
                let next_at = progress.ready_at.map(|at| now.timestamp_of(at));
                let what = match state.is_end() {
                    true => Happened::Ended { state, status, error },
                    false => Happened::Waits { state, status, next_at },
                };
                (call, name(upstream), what)
            }
            _ => return,
        };
        self.watchers.events.tell(CallEvent { call, upstream, at: now.timestamp, what });
    }

    /// A call that somebody waits for, while it has not ended.
    pub(super) fn guest(&self, call: CallId) -> Option<Guest> {
        let standing = self.dispatcher.standing(call)?;
        let (request, source, accepted_at, started_at, attempts) = self.forwards.known(call)?;
        let record = CallRecord {
            id: call,
            source,
            via: request.via,
            upstream: Some(request.upstream.clone()),
            limit_key: request.upstream.clone(),
            method: request.method.as_str().to_owned(),
            url: request.target.url.as_str().to_owned(),
            tags: Vec::new(),
            priority: farcall_core::call::Priority::default().level(),
            tenant: None,
            tenant_id: farcall_core::call::TenantId::default(),
            cost: 1,
            accepted_at,
            not_before: None,
            deadline: None,
            started_at,
            attempts,
            progress: Progress::waiting(standing.state, None),
            cancel_requested: standing.is_cancel_requested,
            has_overrides: false,
            callback_of: None,
            retry_of: None,
            filed: true,
            file: None,
            idempotency: None,
            hop: None,
        };
        Some((record, request, standing))
    }

    /// All of them, the newest first.
    pub(super) fn guests(&self) -> Vec<Guest> {
        let mut guests: Vec<Guest> = self.forwards.ids().filter_map(|call| self.guest(call)).collect();
        guests.sort_by_key(|(record, ..)| std::cmp::Reverse(record.id));
        guests
    }
}

/// What is known of a call beside where it stands: what it came as, from where, since when, when it was first tried and how
/// often.
pub(super) type Known = (Arc<Request>, farcall_core::call::Source, Timestamp, Option<Timestamp>, u32);
