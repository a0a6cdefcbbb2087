//! What the loop counts for the metrics: only what is durable.
//!
//! What is decided waits here with its turn; a turn that fails takes its counts with it, and they come again with its
//! writes. How things stand is put together when somebody asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::attempt::{AttemptKind, AttemptOutcome};
use farcall_core::call::{Source, State, UpstreamId};
use farcall_core::dispatcher::{Progress, Seq, Write};
use farcall_core::id_map::IdMap;
use farcall_core::time::Now;
use farcall_store::port;

use super::Run;
use crate::document::UpstreamRef;
use crate::metrics::{Measured, Metrics, OfUpstream, Whose};
use crate::upstreams::{Serves, Upstreams};

/// The metrics, and what is to be counted.
#[derive(Debug)]
pub(super) struct Counts {
    metrics: Arc<Metrics>,
    by_upstream: IdMap<UpstreamId, Arc<OfUpstream>>,
    undeclared: Arc<OfUpstream>,
    callbacks: Arc<OfUpstream>,
    /// Of turns on their way to the disk.
    held: VecDeque<(Seq, Vec<Count>)>,
}

/// Something that happened.
#[derive(Debug, Clone, Copy)]
enum Count {
    Accepted(Source),
    Waited { upstream: UpstreamId, waited: Duration },
    Attempted { upstream: UpstreamId, outcome: AttemptOutcome, kind: AttemptKind, took: Option<Duration> },
    Finished { upstream: UpstreamId, state: State },
}

impl Counts {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            undeclared: metrics.of(Whose::Undeclared),
            callbacks: metrics.of(Whose::Callbacks),
            metrics,
            by_upstream: IdMap::default(),
            held: VecDeque::new(),
        }
    }

    pub(super) const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Keeps what is to be counted of a turn until it is durable.
    pub(super) fn hold(&mut self, seq: Seq, decided: &[Write], stored: &[port::Write]) {
        let mut counts = Vec::with_capacity(decided.len() + 8);
        decided.iter().zip(stored).for_each(|(decided, stored)| note(decided, stored, &mut counts));
        if !counts.is_empty() {
            self.held.push_back((seq, counts));
        }
    }

    /// Counts what was decided of a call that is not stored.
    pub(super) fn note_unstored(&mut self, decided: &Write, upstreams: &Upstreams) {
        for count in [started(decided), attempted(decided), finished(decided)].into_iter().flatten() {
            self.count(count, upstreams);
        }
    }

    /// Every turn up to this one is durable.
    pub(super) fn committed(&mut self, seq: Seq, upstreams: &Upstreams) {
        while let Some((_, counts)) = self.held.pop_front_if(|(held, _)| *held <= seq) {
            counts.into_iter().for_each(|count| self.count(count, upstreams));
        }
    }

    /// This turn is not durable, nor is any after it.
    pub(super) fn failed(&mut self, seq: Seq) {
        self.held.retain(|(held, _)| *held < seq);
    }

    /// These were forgotten; their numbers may name others from now on. What was counted of them stays with their labels.
    pub(super) fn forget(&mut self, forgotten: &[(UpstreamId, Serves)]) {
        for (id, _) in forgotten {
            self.by_upstream.remove(id);
        }
    }

    /// Upstreams are shown from the start on, before anything has happened there.
    fn know_all(&mut self, upstreams: &Upstreams) {
        for (id, _) in upstreams.iter() {
            self.of(id, upstreams);
        }
    }

    fn count(&mut self, count: Count, upstreams: &Upstreams) {
        match count {
            Count::Accepted(source) => self.metrics.accepted(source),
            Count::Waited { upstream, waited } => self.of(upstream, upstreams).waited(waited),
            Count::Attempted { upstream, outcome, kind, took } => {
                self.of(upstream, upstreams).attempted(outcome, kind, took);
            }
            Count::Finished { upstream, state } => {
                self.of(upstream, upstreams).finished(state);
                if whose(upstream, upstreams) == Whose::Callbacks {
                    self.metrics.called_back(state);
                }
            }
        }
    }

    fn of(&mut self, id: UpstreamId, upstreams: &Upstreams) -> &OfUpstream {
        let Self { metrics, undeclared, callbacks, .. } = self;
        self.by_upstream.entry(id).or_insert_with(|| match whose(id, upstreams) {
            Whose::Undeclared => Arc::clone(undeclared),
            Whose::Callbacks => Arc::clone(callbacks),
            declared @ Whose::Declared(_) => metrics.of(declared),
        })
    }
}

impl Run {
    /// How things stand.
    pub(super) fn measured(&mut self, now: Now) -> Measured {
        self.counts.know_all(&self.upstreams);
        let waiters = self.dispatcher.waiters(now);
        Measured {
            census: self.dispatcher.durable_census(),
            waiting: waiters.by_reason,
            oldest_age: waiters.oldest_age,
            upstreams: self.view_upstreams(),
        }
    }
}

fn whose(id: UpstreamId, upstreams: &Upstreams) -> Whose<'_> {
    match upstreams.get(id) {
        // Commands go to none.
        None => Whose::Callbacks,
        Some(known) if known.serves == Serves::Webhooks => Whose::Callbacks,
        Some(known) => match &*known.reference {
            UpstreamRef::Declared(name) => Whose::Declared(name),
            UpstreamRef::Undeclared(_) => Whose::Undeclared,
        },
    }
}

fn note(decided: &Write, stored: &port::Write, counts: &mut Vec<Count>) {
    if let port::Write::Insert(insert) = stored {
        counts.push(Count::Accepted(insert.call.source));
    }
    counts.extend([started(decided), attempted(decided), finished(decided)].into_iter().flatten());
}

fn started(decided: &Write) -> Option<Count> {
    let &Write::Start { upstream, waited: Some(waited), .. } = decided else { return None };
    Some(Count::Waited { upstream, waited })
}

fn attempted(decided: &Write) -> Option<Count> {
    let &Write::Settle { upstream, attempt: Some(end), .. } = decided else { return None };
    Some(Count::Attempted { upstream, outcome: end.outcome, kind: end.kind, took: end.took })
}

fn finished(decided: &Write) -> Option<Count> {
    let &Write::Settle { upstream, progress: Some(Progress { state, .. }), .. } = decided else { return None };
    state.is_end().then_some(Count::Finished { upstream, state })
}
