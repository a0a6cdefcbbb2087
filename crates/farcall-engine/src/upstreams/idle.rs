//! Undeclared upstreams that nothing needs any more: they are forgotten, but for those that were used last.
//!
//! Whether one is needed is decided in the core. One that is forgotten comes back as after a restart: what it may still
//! count in limits is read from the store.

use farcall_core::call::UpstreamId;

use super::{Known, Making, Serves, Upstreams};
use crate::document::UpstreamRef;

/// So many undeclared upstreams are kept even when they are idle.
const KEPT: usize = 1_000;
/// When there are so many more than the last look left, or twice as many, it is looked for idle ones at once.
pub(super) const LOOK_AFTER: usize = KEPT;

impl Upstreams {
    /// Whether so many have come that idle ones are to be looked for.
    pub(crate) fn is_crowded(&self) -> bool {
        self.by_id.len() >= self.look_at
    }

    /// Forgets undeclared upstreams that nothing needs, but for those that were used last. Gives back their numbers,
    /// which others may have from now on, and what went there.
    pub(crate) fn forget_idle(&mut self, making: &mut Making<'_>) -> Vec<(UpstreamId, Serves)> {
        // One at which something is patched has a place in the configuration.
        let may_go = |known: &Known| match &*known.reference {
            UpstreamRef::Undeclared(origin) => !self.config.origins.contains_key(origin),
            UpstreamRef::Declared(_) => false,
        };
        let undeclared = self.by_id.iter().filter(|(_, known)| may_go(known));
        let mut by_use: Vec<(u64, UpstreamId)> = undeclared.map(|(&id, known)| (known.last_use, id)).collect();
        by_use.sort_unstable();
        let idle: Vec<UpstreamId> = by_use.iter().take(by_use.len().saturating_sub(KEPT)).map(|&(_, id)| id).collect();
        let forgotten = match idle.is_empty() {
            true => Vec::new(),
            false => making.dispatcher.forget_upstreams(making.now.instant, &idle),
        };
        let left = by_use.len() - forgotten.len();
        let gone: Vec<_> = forgotten.into_iter().filter_map(|id| Some((id, self.part_with_idle(id)?))).collect();
        self.look_at = self.by_id.len() + left.max(LOOK_AFTER);
        self.redirected_to = self.redirected_to.min(left);
        gone
    }

    fn part_with_idle(&mut self, id: UpstreamId) -> Option<Serves> {
        let known = self.by_id.remove(&id)?;
        match known.serves {
            Serves::Calls => self.by_reference.remove(&*known.reference),
            Serves::Webhooks => self.webhooks.remove(&*known.reference),
        };
        Some(known.serves)
    }

    pub(super) fn note_use(&mut self, id: UpstreamId) {
        self.uses += 1;
        if let Some(known) = self.by_id.get_mut(&id) {
            known.last_use = self.uses;
        }
    }
}
