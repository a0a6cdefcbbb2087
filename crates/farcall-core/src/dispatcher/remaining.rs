//! What answers say of the other side's quota, carried out: it is closed while nothing remains, and less is started while
//! little does.
//!
//! How much may start still is reckoned in `limit`. A closing is stored, so it outlives a restart; that little remains is
//! not, because the first answer after it says so again.

use super::Dispatcher;
use super::entry::Live;
use crate::attempt::AttemptResult;
use crate::call::{Durability, QuotaId};
use crate::dispatcher::Write;
use crate::id::CallId;
use crate::time::{Instant, Now};

impl Dispatcher {
    /// Takes in what an answer says of how much remains, if it does.
    pub(super) fn hear_remaining(&mut self, now: Now, call: CallId, live: &mut Live, result: &AttemptResult) {
        let Some(said) = result.quota else { return };
        let longest = self.with_terms(call, |terms| terms.retry().retry_after_max);
        // Who says when to come back means that, whatever else he says.
        let longest = result.told_to_wait().map_or(longest, |wait| wait.min(longest));
        let sent = live.launched_at.unwrap_or(Instant::MIN);
        let quota = self.quota(live.quota);
        quota.limits.hear(&mut live.grant, now.instant, sent, &said, longest);
        if let Some(wait) = said.exhausted_for() {
            self.keep_away(call, live.quota, now.instant + wait.min(longest));
        }
    }

    /// Nobody starts anything there until then. An answer to this call says so.
    pub(super) fn keep_away(&mut self, call: CallId, charged: QuotaId, until: Instant) {
        let durability = self.durability_of(call);
        let quota = self.quota(charged);
        quota.close_until(until);
        // A closing that an ephemeral call was told of is not stored.
        if durability == Durability::Ephemeral || quota.stored_closing.is_none_or(|stored| stored < until) {
            if durability == Durability::Durable {
                quota.stored_closing = Some(until);
            }
            self.record(durability, Write::Close { call, until });
        }
    }
}
