//! Permits that are waited for or lent: offered to the dispatcher as calls whose one attempt somebody else makes.
//!
//! The attempt is out from the moment the permit is lent. It ends when the permit is given back, with what the program told;
//! when the lease is over it is cut off like an attempt that takes too long, and counts as sent.

use farcall_core::attempt::{AttemptResult, BytesSent};
use farcall_core::call::{CallSpec, Durability, ErrorKind, Method, Overrides, Source, TenantId};
use farcall_core::dispatcher::Event;
use farcall_core::id::{AttemptId, CallId};
use farcall_core::id_map::IdMap;
use farcall_core::retry::{OnUnknown, RetryPolicy};
use farcall_core::time::Now;
use tokio::sync::oneshot;

use super::Run;
use crate::clock;
use crate::document::UpstreamRef;
use crate::execute::http;
use crate::forward::Place;
use crate::permit::{Lease, PermitError, PermitOffer, PermitWish, Release};
use crate::upstreams::Serves;

/// All that are waited for or lent.
#[derive(Debug, Default)]
pub(super) struct Permits {
    permits: IdMap<CallId, Permit>,
}

#[derive(Debug)]
struct Permit {
    wish: PermitWish,
    standing: Standing,
    _place: Place,
}

#[derive(Debug)]
enum Standing {
    Waits(oneshot::Sender<Result<Lease, PermitError>>),
    Lent {
        attempt: AttemptId,
        since: Now,
    },
    /// It was given back or has expired, which its call is to be told yet.
    Over,
}

impl Permits {
    /// Whether this call is a permit.
    pub(super) fn holds(&self, call: CallId) -> bool {
        self.permits.contains_key(&call)
    }

    /// Nobody is lent anything any more.
    pub(super) fn clear(&mut self) {
        self.permits.clear();
    }

    /// That call has ended.
    pub(super) fn ended(&mut self, call: CallId, is_draining: bool) {
        if let Some(Permit { standing: Standing::Waits(reply), .. }) = self.permits.remove(&call) {
            let why = if is_draining { PermitError::Draining } else { PermitError::Ended };
            drop(reply.send(Err(why)));
        }
    }

    /// When the permit of this call was lent, and as which attempt; it no longer is.
    fn take_back(&mut self, call: CallId) -> Option<(AttemptId, Now)> {
        let standing = &mut self.permits.get_mut(&call)?.standing;
        let &mut Standing::Lent { attempt, since } = standing else { return None };
        *standing = Standing::Over;
        Some((attempt, since))
    }
}

impl Run {
    /// Takes a wish in.
    pub(super) fn permit(&mut self, offer: PermitOffer) {
        let PermitOffer { id, wish, reply, place } = offer;
        // Whoever has gone told so before anybody knew of the wish.
        if reply.is_closed() {
            return;
        }
        if self.drains_until.is_some() {
            return drop(reply.send(Err(PermitError::Draining)));
        }
        let reference = UpstreamRef::Declared(wish.upstream.clone());
        let Some(upstream) = self.upstreams.find(&reference, Serves::Calls) else {
            return drop(reply.send(Err(PermitError::UnknownUpstream { name: wish.upstream })));
        };
        let now = clock::now();
        let overrides = Overrides {
            timeout: Some(wish.lease),
            retry: Some(RetryPolicy::none()),
            on_unknown: Some(OnUnknown::Stop),
            ..Overrides::default()
        };
        let spec = CallSpec {
            id,
            upstream,
            source: Source::Api,
            durability: Durability::Ephemeral,
            method: Method::Other,
            priority: wish.priority,
            tenant: TenantId::default(),
            cost: wish.cost,
            accepted_at: now.timestamp,
            not_before: None,
            deadline: None,
            overrides: Some(Box::new(overrides)),
            has_file: false,
            callback: None,
            callback_of: None,
        };
        self.permits.permits.insert(id, Permit { wish, standing: Standing::Waits(reply), _place: place });
        self.counts.metrics().accepted(Source::Api);
        self.dispatcher.handle(now, Event::Offered(Box::new(spec)));
    }

    /// The limits allow it: whoever waits may make an attempt.
    pub(super) fn lend(&mut self, now: Now, attempt: AttemptId) {
        let Some(permit) = self.permits.permits.get_mut(&attempt.call) else { return };
        let lent = Standing::Lent { attempt, since: now };
        let Standing::Waits(reply) = std::mem::replace(&mut permit.standing, lent) else { return };
        let lease = Lease {
            id: attempt.call,
            upstream: permit.wish.upstream.clone(),
            cost: permit.wish.cost.get(),
            granted_at: now.timestamp,
            expires_at: now.timestamp + permit.wish.lease,
        };
        if reply.send(Ok(lease)).is_err() && self.permits.take_back(attempt.call).is_some() {
            let unsent = Release { unsent: true, ..Release::default() };
            self.end_lease(now, now, attempt, &unsent);
        }
    }

    /// Takes a permit back; whether it was lent.
    pub(super) fn release(&mut self, upstream: &str, id: CallId, release: &Release) -> bool {
        if self.permits.permits.get(&id).is_none_or(|permit| permit.wish.upstream != upstream) {
            return false;
        }
        let Some((attempt, since)) = self.permits.take_back(id) else { return false };
        let now = clock::now();
        self.end_lease(now, since, attempt, release);
        true
    }

    /// A lease is over, or the engine stops: whatever was to be sent counts as sent. Whether that attempt is a permit's.
    pub(super) fn cut_lease(&mut self, attempt: AttemptId) -> bool {
        if self.permits.take_back(attempt.call).is_some() {
            self.dispatcher.handle(clock::now(), Event::Aborted { attempt, wrote: BytesSent::Maybe });
        }
        self.permits.holds(attempt.call)
    }

    fn end_lease(&mut self, now: Now, since: Now, attempt: AttemptId, release: &Release) {
        if release.status.is_some() && !release.unsent {
            self.dispatcher.handle(now, Event::FirstByte { attempt, at: now.instant });
        }
        let result = result(release, now, since);
        self.dispatcher.handle(now, Event::Finished { attempt, result });
    }
}

/// What the program told, as an executor would have.
fn result(release: &Release, now: Now, since: Now) -> AttemptResult {
    let (retry_after, quota) = http::told(&release.headers, now.timestamp);
    let told = AttemptResult {
        // Nothing said against it: whoever gives a permit back without a word got what was wanted.
        status: Some(release.status.unwrap_or(200)),
        error: None,
        retry_after,
        quota,
        redirect: None,
        content_ok: true,
        bytes_sent: BytesSent::Maybe,
        latency: now.instant.since(since.instant),
        size: 0,
    };
    match release.unsent {
        true => AttemptResult {
            status: None,
            error: Some(ErrorKind::Connect),
            retry_after: None,
            quota: None,
            bytes_sent: BytesSent::No,
            ..told
        },
        false => told,
    }
}
