//! What is held to in the small world of calls that somebody waits for. It rests on what was offered, told, written and seen
//! by the upstreams, and asks the dispatcher nothing.

use std::collections::{BTreeMap, BTreeSet};

use farcall_core::call::{CallSpec, Durability};
use farcall_core::dispatcher::Write;
use farcall_core::id::{AttemptId, CallId};
use farcall_core::policy::UpstreamPolicy;
use farcall_core::steady::Steady;
use farcall_core::time::Instant;
use farcall_store::memory::MemoryStore;
use farcall_store::port::{GrantsAsk, Store};

use crate::checker::{Check, ensure, violation};

/// What is known of every call, and what every upstream saw.
pub(crate) struct Rules {
    pub(crate) calls: BTreeMap<CallId, Known>,
    ended: BTreeSet<CallId>,
    abandoned: BTreeSet<CallId>,
    arrivals: Vec<Vec<Instant>>,
}

/// A call as it was offered.
pub(crate) struct Known {
    pub(crate) spec: CallSpec,
    boot: u32,
}

/// What the limits of the upstream at this place are counted by.
pub(crate) fn key(place: usize) -> String {
    format!("upstream{place}")
}

pub(crate) fn place(key: &str) -> Option<usize> {
    key.strip_prefix("upstream")?.parse().ok()
}

impl Rules {
    pub(super) fn new(upstreams: usize) -> Self {
        let (ended, abandoned) = (BTreeSet::new(), BTreeSet::new());
        Self { calls: BTreeMap::new(), ended, abandoned, arrivals: vec![Vec::new(); upstreams] }
    }

    pub(super) fn offered(&mut self, spec: &CallSpec, boot: u32) {
        self.calls.insert(spec.id, Known { spec: spec.clone(), boot });
    }

    pub(super) fn abandoned(&mut self, call: CallId) {
        self.abandoned.insert(call);
    }

    /// Nobody waits for what the process had any more.
    pub(super) fn killed(&mut self) {
        let waiting = self.calls.iter().filter(|(_, known)| known.spec.durability == Durability::Ephemeral);
        self.abandoned.extend(waiting.map(|(&call, _)| call));
    }

    pub(super) fn arrived(&mut self, upstream: usize, at: Instant) {
        self.arrivals[upstream].push(at);
    }

    /// Nothing but calls that somebody waits for goes without the disk, and each ends once.
    pub(super) fn told(&mut self, unstored: &[Write]) -> Check {
        for write in unstored {
            let call = write.call().ok_or_else(|| violation(format!("{write:?} is not stored")))?;
            ensure(self.is_waited_for(call), || format!("{write:?} of a durable call is not stored"))?;
            if let Write::Settle { progress: Some(progress), .. } = write
                && progress.state.is_end()
            {
                ensure(self.ended.insert(call), || format!("{call} ends twice"))?;
            }
        }
        Ok(())
    }

    /// Of calls that somebody waits for nothing is stored but what they take of limits.
    pub(super) fn wrote(&self, writes: &[Write]) -> Check {
        for write in writes {
            let is_waited_for = write.call().is_some_and(|call| self.is_waited_for(call));
            let is_grant = matches!(write, Write::Grant { .. } | Write::GrantEnd { .. });
            ensure(is_waited_for == is_grant, || format!("{write:?} is stored"))?;
        }
        Ok(())
    }

    /// Somebody waits for it still, and what it takes of limits that outlast a restart is stored.
    pub(super) fn launched(
        &self,
        attempt: AttemptId,
        boot: u32,
        counted_in: Option<&MemoryStore>,
        place: usize,
    ) -> Check {
        let call = attempt.call;
        if !self.is_waited_for(call) {
            return Ok(());
        }
        let is_of_this_boot = self.calls[&call].boot == boot;
        ensure(is_of_this_boot, || format!("{attempt:?} is launched by a later process"))?;
        let is_wanted = !self.ended.contains(&call) && !self.abandoned.contains(&call);
        ensure(is_wanted, || format!("{attempt:?} is launched though nobody waits for it"))?;
        let Some(store) = counted_in else { return Ok(()) };
        let unreadable = |error| violation(format!("the store cannot be read: {error}"));
        let ask = GrantsAsk::Latest { since: Steady::from_micros(i64::MAX), count: 1 };
        let granted = store.reader().map_err(unreadable)?.grants(&key(place), &[ask]).map_err(unreadable)?;
        let is_stored = granted.grants.iter().flatten().any(|grant| grant.open == Some(attempt));
        ensure(is_stored, || format!("{attempt:?} is launched before what it takes is stored"))
    }

    /// No window over its limit, wherever it begins.
    pub(super) fn check_windows(&self, policies: &[UpstreamPolicy]) -> Check {
        for (arrivals, policy) in self.arrivals.iter().zip(policies) {
            for limit in &policy.limits {
                let count = limit.count.get() as usize;
                let over = arrivals.windows(count + 1).find(|seen| seen[count].since(seen[0]) < limit.window);
                ensure(over.is_none(), || format!("more than {count} arrived within {:?}: {over:?}", limit.window))?;
            }
        }
        Ok(())
    }

    fn is_waited_for(&self, call: CallId) -> bool {
        self.calls.get(&call).is_some_and(|known| known.spec.durability == Durability::Ephemeral)
    }
}
