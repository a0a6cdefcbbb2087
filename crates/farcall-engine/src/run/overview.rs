//! One line per upstream, for people who watch: what it has done since the start, and what waits for it.
//!
//! Put together when somebody asks; nothing is kept for it.

use farcall_core::call::UpstreamId;
use farcall_core::time::Instant;

use super::Run;
use crate::clock;
use crate::handle::{Overview, UpstreamOverview};
use crate::upstreams::{Serves, limit_key};

impl Run {
    pub(super) fn overview(&mut self) -> Overview {
        let now = clock::now();
        let waiters = self.dispatcher.waiters(now);
        let known = self.upstreams.iter().map(|(id, known)| (id, known.serves, limit_key(&known.reference).to_owned()));
        let (calls, webhooks): (Vec<_>, Vec<_>) = known.partition(|&(_, serves, _)| serves == Serves::Calls);
        let mut upstreams: Vec<UpstreamOverview> =
            calls.into_iter().map(|(id, _, name)| self.upstream_overview(id, name, now.instant)).collect();
        let others = self.stats.others();
        if others.attempts > 0 || !others.ended.is_empty() {
            upstreams.push(others.clone().overview("others".to_owned()));
        }
        let commands = self.dispatcher.command_upstream();
        let mut callbacks = self.upstream_overview(commands, "callbacks".to_owned(), now.instant);
        for (id, _, name) in webhooks {
            callbacks.add(self.upstream_overview(id, name, now.instant));
        }
        let next_at = waiters.next_at.map(|at| now.timestamp_of(at));
        Overview { upstreams, callbacks, waiting: waiters.by_reason.into_iter().collect(), next_at }
    }

    fn upstream_overview(&mut self, id: UpstreamId, name: String, now: Instant) -> UpstreamOverview {
        let standing = self.dispatcher.upstream_standing(id, now);
        let (waiting, in_flight, is_paused) = (standing.waiting, standing.in_flight, standing.is_paused);
        UpstreamOverview { waiting, in_flight, is_paused, ..self.stats.tally(id).overview(name) }
    }
}
