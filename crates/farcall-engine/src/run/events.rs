//! What is told to those who follow what happens: only what is durable, and only while somebody follows.
//!
//! What is decided waits here with its turn; a turn that fails takes its news with it.

use std::collections::VecDeque;

use farcall_core::breaker::BreakerState;
use farcall_core::call::UpstreamId;
use farcall_core::dispatcher::{Seq, Write};
use farcall_core::time::{Now, Timestamp};
use farcall_store::port;
use tokio::sync::broadcast;

use super::Run;
use crate::clock;
use crate::upstreams::{declared_name, limit_key};
use crate::watch::{BreakerEvent, CallEvent, Happened, News};

/// Events that may wait for a follower who is slow; then it misses the oldest and is told how many.
const EVENTS_MAX: usize = 4_096;

/// Everybody who follows, and what they will be told.
#[derive(Debug)]
pub(super) struct Events {
    followers: broadcast::Sender<News>,
    /// Of turns on their way to the disk.
    held: VecDeque<(Seq, Vec<CallEvent>)>,
}

impl Default for Events {
    fn default() -> Self {
        Self { followers: broadcast::channel(EVENTS_MAX).0, held: VecDeque::new() }
    }
}

impl Events {
    pub(super) fn sender(&self) -> broadcast::Sender<News> {
        self.followers.clone()
    }

    pub(super) fn is_followed(&self) -> bool {
        self.followers.receiver_count() > 0
    }

    /// This has happened, and rests on nothing that is to be stored.
    pub(super) fn tell(&self, event: CallEvent) {
        // Whoever followed may have gone.
        let _ = self.followers.send(event);
    }

    pub(super) fn hold(&mut self, seq: Seq, events: Vec<CallEvent>) {
        if !events.is_empty() {
            self.held.push_back((seq, events));
        }
    }

    /// Every turn up to this one is durable.
    pub(super) fn committed(&mut self, seq: Seq) {
        while let Some((_, events)) = self.held.pop_front_if(|(held, _)| *held <= seq) {
            for event in events {
                // Whoever followed may have gone.
                let _ = self.followers.send(News::Call(event));
            }
        }
    }

    /// This turn is not durable, nor is any after it.
    pub(super) fn failed(&mut self, seq: Seq) {
        self.held.retain(|(held, _)| *held < seq);
    }
}

impl Run {
    /// A breaker has opened or closed: whoever follows hears of it, and the log.
    pub(super) fn breaker_turned(&mut self, id: UpstreamId, state: BreakerState) {
        let Some(known) = self.upstreams.get(id) else { return };
        let (now, upstream) = (clock::now(), limit_key(&known.reference).to_owned());
        let standing = self.dispatcher.upstream_standing(id, now.instant).breaker;
        let until = standing.and_then(|standing| standing.open_until).map(|at| now.timestamp_of(at));
        let upstream_name = upstream.as_str();
        match state {
            BreakerState::Open | BreakerState::HalfOpen => {
                let until_unix_ms = until.map(|at| at.as_micros() / 1_000);
                tracing::warn!(upstream = upstream_name, until_unix_ms, "an upstream fails: its breaker is open");
            }
            BreakerState::Closed => tracing::info!(upstream = upstream_name, "the breaker is closed"),
        }
        let event = BreakerEvent { upstream, at: now.timestamp, state, until };
        // Mostly nobody follows.
        let _ = self.watchers.events.followers.send(News::Breaker(event));
    }

    /// What those who follow calls hear of a write once it is durable.
    pub(super) fn event_of(&self, decided: &Write, stored: &port::Write, now: Now) -> Option<CallEvent> {
        let name = |id| self.upstreams.get(id).and_then(|known| declared_name(&known.reference));
        let call = stored.call()?;
        let event = |upstream, what| CallEvent { call, upstream, at: now.timestamp, what };
        match (decided, stored) {
            (_, port::Write::Insert(insert)) => {
                let what = Happened::Accepted { state: insert.call.progress.state };
                Some(event(insert.call.upstream.clone(), what))
            }
            (Write::Start { upstream, .. }, port::Write::Start(start)) => {
                Some(event(name(*upstream), Happened::Started { attempt: start.number }))
            }
            (Write::Settle { upstream, .. }, port::Write::Settle(settle)) => {
                let progress = settle.progress.as_ref()?;
                let next_at = progress.ready_at.map(|at| now.timestamp_of(self.steady.instant(at)));
                Some(event(name(*upstream), happened(progress, next_at)))
            }
            _ => None,
        }
    }
}

fn happened(progress: &farcall_store::record::Progress, next_at: Option<Timestamp>) -> Happened {
    let (state, status) = (progress.state, progress.status);
    if state.is_end() {
        return Happened::Ended { state, status, error: progress.error.as_ref().map(|error| error.kind) };
    }
    Happened::Waits { state, status, next_at }
}
