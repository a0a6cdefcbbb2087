//! Permits for programs that make their requests themselves: lent when the limits allow an attempt, given back or left to
//! expire.
//!
//! A permit is an attempt like any other, made by somebody else: it is counted in every limit and in `concurrency` from the
//! moment it is lent, and what its program tells of the answer is heard as if it had been farcall's own. Why:
//! `docs/design/0043`; what the loop does with it stands in `run::permits`.

use std::num::NonZeroU32;
use std::time::Duration;

use farcall_core::call::Priority;
use farcall_core::id::CallId;
use farcall_core::time::Timestamp;
use http::HeaderMap;
use tokio::sync::oneshot;

use crate::clock;
use crate::forward::Place;
use crate::handle::Handle;
use crate::run::{Leaving, Message};

/// What a program that wants to make a request asks for.
#[derive(Debug, Clone)]
pub struct PermitWish {
    /// The declared upstream that the request goes to, by name.
    pub upstream: String,
    /// Slots of every window.
    pub cost: NonZeroU32,
    pub priority: Priority,
    /// For how long it is lent.
    pub lease: Duration,
}

/// A permit that is lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub id: CallId,
    pub upstream: String,
    /// Slots taken of every window.
    pub cost: u32,
    pub granted_at: Timestamp,
    /// Nothing may be sent with it from then on; it counts as sent.
    pub expires_at: Timestamp,
}

/// What became of the request.
#[derive(Debug, Clone, Default)]
pub struct Release {
    /// Nothing was sent: the slots are free again.
    pub unsent: bool,
    /// That of the answer.
    pub status: Option<u16>,
    /// The answer's: Retry-After, and what it says of a quota, are heard.
    pub headers: HeaderMap,
}

/// Why no permit is lent.
#[derive(Debug, thiserror::Error)]
pub enum PermitError {
    #[error("no upstream is called {name:?}")]
    UnknownUpstream { name: String },
    /// Too many wait already.
    #[error("too many wait for permits or answers")]
    Overloaded { retry_after: Duration },
    #[error("farcall is stopping")]
    Draining,
    /// It was cancelled, or the upstream takes nothing for now.
    #[error("the wait for a permit was ended")]
    Ended,
}

/// What the loop is handed.
#[derive(Debug)]
pub(crate) struct PermitOffer {
    pub(crate) id: CallId,
    pub(crate) wish: PermitWish,
    pub(crate) reply: oneshot::Sender<Result<Lease, PermitError>>,
    pub(crate) place: Place,
}

/// Somebody waits; when this is dropped, nobody does any more.
struct Waiting {
    call: CallId,
    leaving: Leaving,
}

impl Handle {
    /// Lends a permit as soon as every limit of the upstream allows an attempt. Dropping the future gives the place in the
    /// queue back.
    ///
    /// # Errors
    /// When there is none to be had. Nothing is counted then.
    pub async fn permit(&self, wish: PermitWish) -> Result<Lease, PermitError> {
        let now = clock::now();
        if self.config().upstreams.get(&wish.upstream).is_none() {
            return Err(PermitError::UnknownUpstream { name: wish.upstream });
        }
        let place = self.places.take(now.instant).map_err(|retry_after| PermitError::Overloaded { retry_after })?;
        let id = CallId::new(now.timestamp, fastrand::u128(..));
        let (reply, lent) = oneshot::channel();
        let waiting = Waiting { call: id, leaving: self.leaving.clone() };
        let offer = PermitOffer { id, wish, reply, place };
        self.messages.send(Message::Permit(Box::new(offer))).await.map_err(|_| PermitError::Draining)?;
        let lent = lent.await.unwrap_or(Err(PermitError::Draining));
        // It is lent, or nobody knows of it any more.
        std::mem::forget(waiting);
        lent
    }

    /// Takes a permit back. Whether it was lent: one that has expired, or was given back before, is not there any more.
    pub async fn release(&self, upstream: &str, id: CallId, release: Release) -> bool {
        let (reply, released) = oneshot::channel();
        let message = Message::Release { upstream: upstream.to_owned(), id, release: Box::new(release), reply };
        self.messages.send(message).await.is_ok() && released.await.unwrap_or(false)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.leaving.abandon(self.call);
    }
}
