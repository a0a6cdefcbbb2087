//! Who carries a batch's calls out: the engine of this process ([`Here`](super::Here)), or a server that somebody talks to.
//!
//! Calls are named by their ids. Which line is which call is not known here.

use std::error::Error;
use std::future::Future;

use bytes::Bytes;
use farcall_core::call::State;
use farcall_core::id::CallId;

use super::BatchError;
use crate::document::Rejection;

/// A line that is to be a call.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The id that the call has when whoever carries it out lets others choose one.
    pub id: CallId,
    pub text: Bytes,
}

/// What came of an offer.
#[derive(Debug)]
pub enum Answer {
    /// A durable call.
    Accepted(CallId),
    /// No valid call.
    Rejected(Rejection),
    /// It cannot be taken now, or whether it was is not known: to be offered again, just as it is.
    Refused(Box<dyn Error + Send + Sync>),
}

/// What is heard of ends.
#[derive(Debug)]
pub enum News {
    /// These have ended, durably; calls of others may be among them.
    Ended(Vec<CallId>),
    /// Some ends were missed: every call that is waited for is to be looked at.
    Missed,
    /// Nothing more will be heard.
    Gone,
}

/// The outcome of a call that has ended, as it is written.
#[derive(Debug, Clone)]
pub struct Told {
    pub state: State,
    /// A line.
    pub text: Vec<u8>,
}

/// Carries calls out.
pub trait Carrier: Send + Sync {
    type Ends: Ends;

    /// Ends from now on.
    ///
    /// # Errors
    /// When there will be none.
    fn ends(&self) -> Result<Self::Ends, BatchError>;

    /// Makes calls of lines; for each, in their order, what came of it.
    ///
    /// # Errors
    /// When nothing more can be offered.
    fn offer(&self, offers: Vec<Offer>) -> impl Future<Output = Result<Vec<Answer>, BatchError>> + Send;

    /// Where calls stand, in their order; nothing for those that are not known.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn states(&self, calls: Vec<CallId>) -> impl Future<Output = Result<Vec<Option<State>>, BatchError>> + Send;

    /// The outcomes of lines that have ended, in their order; nothing for those that are not known. After the first only as
    /// many as fit into so many bytes; the others are left out.
    ///
    /// # Errors
    /// When they cannot be read.
    fn outcomes(
        &self,
        calls: Vec<(u32, CallId)>,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<Option<Told>>, BatchError>> + Send;
}

/// Where ends are heard of.
pub trait Ends: Send {
    /// Waits for news; nothing is lost when the waiting is given up.
    fn next(&mut self) -> impl Future<Output = News> + Send;
}
