//! Where callbacks go: how often they are tried, and the upstreams of those that go to a URL.
//!
//! A webhook obeys the limits of the upstream that its URL belongs to, as everything that is sent there does; only its
//! lanes and its concurrency are its own.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::call::UpstreamId;
use farcall_core::policy::UpstreamPolicy;
use farcall_core::retry::{OnUnknown, RetryPolicy, StatusSet};

use super::{Known, Making, Serves, UpstreamError, Upstreams};
use crate::config::{CallbackAction, Success, Upstream};
use crate::document::UpstreamRef;

/// How often a callback is tried again, how many run at a time, and how long each may take.
const CALLBACK_RETRIES: u32 = 4;
const CALLBACK_CONCURRENCY: NonZeroU32 = NonZeroU32::new(4).expect("4 is not zero");
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Callbacks that run a command: 5 tries with the default backoff, 60 s each, 4 at a time, at least once.
pub(crate) fn command_policy() -> UpstreamPolicy {
    UpstreamPolicy {
        concurrency: Some(CALLBACK_CONCURRENCY),
        timeout: CALLBACK_TIMEOUT,
        retry: RetryPolicy { max: CALLBACK_RETRIES, ..RetryPolicy::durable() },
        on_unknown: Some(OnUnknown::Retry),
        ..UpstreamPolicy::default()
    }
}

/// The same for webhooks to an upstream: any answer but 2xx is a try that failed.
pub(super) fn webhook_settings(shared: &Upstream) -> Upstream {
    let commands = command_policy();
    let retry = RetryPolicy { statuses: StatusSet::new(vec![(0, u16::MAX)]), ..commands.retry };
    let UpstreamPolicy { limits, smooth, strict, jitter, .. } = shared.policy.clone();
    let policy = UpstreamPolicy { limits, smooth, strict, jitter, retry, ..commands };
    Upstream { policy, success: Success::default(), ..shared.clone() }
}

impl Upstreams {
    /// The upstream of webhooks whose URLs belong to this one. It shares its limits and the way there, and has its own
    /// lanes, so that neither calls nor other receivers wait for a receiver that hangs.
    pub(crate) fn webhooks_to(
        &mut self,
        reference: &UpstreamRef,
        making: &mut Making<'_>,
    ) -> Result<UpstreamId, UpstreamError> {
        if let Some(&id) = self.webhooks.get(reference) {
            self.note_use(id);
            return Ok(id);
        }
        let with = self.resolve(reference, making)?;
        // Making it may have come back here, by its own callbacks.
        if let Some(&id) = self.webhooks.get(reference) {
            return Ok(id);
        }
        let shared = &self.by_id[&with];
        let settings = Arc::new(webhook_settings(&shared.settings));
        let (reference, transport) = (reference.clone(), Arc::clone(&shared.transport));
        let id = making.dispatcher.declare_sharing(settings.policy.clone(), with);
        if self.is_missing(&reference) {
            making.dispatcher.withdraw(id);
        }
        self.webhooks.insert(reference.clone(), id);
        let (reference, serves) = (Arc::new(reference), Serves::Webhooks);
        self.by_id.insert(id, Known { reference, serves, settings, transport, last_use: 0 });
        self.note_use(id);
        Ok(id)
    }

    /// Where a callback goes.
    pub(super) fn target(
        &mut self,
        action: Option<&CallbackAction>,
        making: &mut Making<'_>,
    ) -> Result<Option<UpstreamId>, UpstreamError> {
        match action {
            None => Ok(None),
            Some(CallbackAction::Command(_)) => Ok(Some(making.dispatcher.command_upstream())),
            Some(CallbackAction::Webhook(webhook)) => {
                let reference = UpstreamRef::of(&webhook.url, &self.config);
                self.webhooks_to(&reference, making).map(Some)
            }
        }
    }
}
