//! Breakers at work: who told them what, and what happens when they turn.
//!
//! A breaker belongs to a quota, so it holds for all that goes to one other side, and hears of all of it: calls,
//! callbacks, hops. Hedges say nothing, whatever becomes of them: they are made because an attempt is slow, and would
//! count that twice. When it opens or closes is the breaker's own choice (`crate::breaker`).

use super::entry::Live;
use super::quota::Quota;
use super::{Dispatcher, Effect};
use crate::attempt::AttemptKind;
use crate::breaker::{Breaker, BreakerPolicy, BreakerState, Evidence, Pass, Sent};
use crate::call::QuotaId;
use crate::time::Now;

impl Dispatcher {
    /// An attempt is over. Its slots have been settled, so it is known whether it sent anything.
    pub(super) fn tell_breaker(&mut self, now: Now, live: &Live, evidence: Evidence) {
        let Some(pass) = live.pass else { return };
        let evidence = if live.kind == AttemptKind::Hedge { Evidence::Nothing } else { evidence };
        let sent = if live.grant.proved_at().is_some() { Sent::Maybe } else { Sent::Nothing };
        let Some(breaker) = &mut self.quota(live.quota).breaker else { return };
        if let Some(state) = breaker.leave(now.instant, pass, evidence, sent) {
            self.breaker_turned(live.quota, state);
            if state == BreakerState::Open {
                self.turn_away(now, live.quota);
            }
        }
    }

    /// Somebody says that all is well.
    pub(super) fn close_breaker(&mut self, id: QuotaId) {
        if self.quota(id).breaker.as_mut().is_some_and(Breaker::close) {
            self.breaker_turned(id, BreakerState::Closed);
        }
    }

    /// Another policy holds from now on.
    pub(super) fn change_breaker(&mut self, id: QuotaId, policy: Option<BreakerPolicy>) {
        if policy.is_none() {
            self.close_breaker(id);
        }
        let quota = self.quota(id);
        match (&mut quota.breaker, policy) {
            (Some(breaker), Some(policy)) => breaker.change(policy),
            (breaker, policy) => *breaker = policy.map(Breaker::new),
        }
    }

    fn breaker_turned(&mut self, id: QuotaId, state: BreakerState) {
        let upstream = self.quota(id).owner;
        self.effects.push(Effect::BreakerTurned { upstream, state });
        self.wake(id);
    }
}

impl Quota {
    /// An attempt was never made.
    pub(super) fn undo_pass(&mut self, pass: Option<Pass>) {
        if let (Some(breaker), Some(pass)) = (&mut self.breaker, pass) {
            breaker.undo(pass);
        }
    }
}
