//! Steering calls that were accepted: cancelling one, and making one again.
//!
//! What is asked for is decided by the dispatcher; whoever asked is answered once that is durable.

use std::sync::Arc;

use farcall_core::call::{Source, State, Via};
use farcall_core::id::CallId;
use farcall_store::port::ReadError;
use tokio::sync::oneshot;

use crate::document::{self, Rejection, Routing};
use crate::handle::{Accepted, CallView, Handle, Submission, SubmitError};
use crate::run::{CancelAnswer, Message};
use crate::trace::{TraceContext, understood};

/// What came of cancelling a call; it is durable.
#[derive(Debug, Clone)]
pub enum Cancelled {
    /// It has ended, and no byte of it will be sent any more.
    Ended(Box<CallView>),
    /// Bytes of it may be out: no further attempt is made, and it ends as this one does.
    Requested(Box<CallView>),
}

/// Why a call was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    #[error("there is no call of this id")]
    Unknown,
    #[error("the call has ended: {state}")]
    AlreadyEnded { state: State },
    #[error("too many requests wait for calls already")]
    Busy,
    #[error("farcall is stopping")]
    Stopping,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Who makes a call again, and how.
#[derive(Debug, Clone)]
pub struct RetryAs {
    /// In whose name the new call acts; never in that of more than the old one did.
    pub via: Via,
    /// Whose idempotency keys count; empty for the user.
    pub scope: String,
    /// The new call's own; that of the old one stays with it.
    pub idempotency_key: Option<String>,
    /// The trace that the new call belongs to; without one it goes on with that of the old one.
    pub trace: Option<Arc<TraceContext>>,
}

/// Why a call was not made again.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    #[error("there is no call of this id")]
    Unknown,
    #[error("the call has not ended: {state}")]
    NotEnded { state: State },
    #[error("a callback is not made again by itself: it belongs to the end of its call")]
    Callback,
    #[error("what the call was made of cannot be read any more")]
    Damaged,
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<Rejection> for RetryError {
    fn from(rejection: Rejection) -> Self {
        Self::Submit(rejection.into())
    }
}

impl Handle {
    /// Ends a call `cancelled` when no byte of it will be sent any more; else no further attempt is made, and it ends as
    /// the one that is out does.
    ///
    /// # Errors
    /// When there is nothing to cancel, or nobody can tell what came of it.
    pub async fn cancel(&self, call: CallId) -> Result<Cancelled, CancelError> {
        let (reply, answer) = oneshot::channel();
        self.messages.send(Message::Cancel { call, reply }).await.map_err(|_| CancelError::Stopping)?;
        let told = answer.await.map_err(|_| CancelError::Stopping)?;
        match told {
            CancelAnswer::Busy => return Err(CancelError::Busy),
            CancelAnswer::Stopping => return Err(CancelError::Stopping),
            CancelAnswer::Ended | CancelAnswer::Noted | CancelAnswer::Missed => {}
        }
        let view = self.call(call).await?.ok_or(CancelError::Unknown)?;
        let state = view.record.progress.state;
        match told {
            CancelAnswer::Ended | CancelAnswer::Noted if state == State::Cancelled => {
                Ok(Cancelled::Ended(Box::new(view)))
            }
            CancelAnswer::Noted => Ok(Cancelled::Requested(Box::new(view))),
            // It was on its way from one place to another.
            CancelAnswer::Missed if !state.is_end() => Err(CancelError::Busy),
            _ => Err(CancelError::AlreadyEnded { state }),
        }
    }

    /// Makes a call that has ended again, as a new call with the same document; the old one keeps its end.
    ///
    /// # Errors
    /// When it cannot be made again, or the new call is not accepted; nothing of that is kept then.
    pub async fn retry(&self, call: CallId, retry_as: RetryAs) -> Result<Accepted, RetryError> {
        let Some((record, stored)) = self.reads.call_and_request(call).await? else { return Err(RetryError::Unknown) };
        let bytes = stored.document;
        let state = record.progress.state;
        if !state.is_end() {
            return Err(RetryError::NotEnded { state });
        }
        if record.callback_of.is_some() {
            return Err(RetryError::Callback);
        }
        if bytes.is_empty() {
            return Err(RetryError::Damaged);
        }
        let mut document = document::parse(&bytes, &Routing::from(&*self.config()))?;
        let RetryAs { via, scope, idempotency_key, trace } = retry_as;
        document.idempotency_key = idempotency_key;
        document.trace = trace.or_else(|| understood(stored.trace.as_deref()));
        let via = if via == Via::Tcp { via } else { record.via };
        let submission = Submission {
            document: Box::new(document),
            bytes,
            source: Source::Api,
            via,
            file: None,
            scope,
            retry_of: Some(call),
            id: None,
        };
        Ok(self.submit(submission).await?)
    }
}
