//! What attempts of calls that are not stored count in limits: while they are out one by one, then in sums.
//!
//! Who is granted anything is not decided here; what contradicts what is kept is refused.

use std::num::NonZeroI64;

use farcall_core::steady::Steady;

use super::content::{Content, end_of_step};
use crate::port::{Grant, GrantEnd};
use crate::transition::{GRANT_STEP_US, Refusal, SECOND_GRANT, UNGRANTED_END};

impl Content {
    pub(super) fn grant(&mut self, grant: &Grant) -> Result<(), Refusal> {
        match self.granted_mut().insert(grant.attempt, grant.clone()) {
            None => Ok(()),
            Some(_) => Err(SECOND_GRANT),
        }
    }

    pub(super) fn end_grant(&mut self, end: &GrantEnd) -> Result<(), Refusal> {
        let grant = self.granted_mut().remove(&end.attempt).ok_or(UNGRANTED_END)?;
        self.kept_mut().retain(|&(_, at), _| at >= end.grants_since);
        if let Some(proved_at) = end.proved_at {
            self.keep_grant(grant, proved_at);
        }
        Ok(())
    }

    pub(super) fn leave_grants(&mut self, proved_at: Steady) -> Result<(), Refusal> {
        for grant in std::mem::take(self.granted_mut()).into_values() {
            self.keep_grant(grant, proved_at);
        }
        Ok(())
    }

    fn keep_grant(&mut self, grant: Grant, proved_at: Steady) {
        let step = NonZeroI64::new(GRANT_STEP_US).expect("a time is not zero");
        let at = end_of_step(grant.granted_at.max(proved_at), step);
        let cost = self.kept_mut().entry((grant.limit_key, at)).or_default();
        *cost = cost.saturating_add(grant.cost);
    }
}
