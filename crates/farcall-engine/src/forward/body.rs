//! Bodies of calls that somebody waits for: what is sent, and what is given back.
//!
//! How the pieces of an answer come here is the matter of `execute/flow`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use farcall_core::id::CallId;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use super::ForwardError;
use crate::execute::flow::{Flow, Piece};
use crate::run::Leaving;

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// A body as it comes from a client.
pub type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// The largest body that is kept in memory as a whole.
const WHOLE_BYTES_MAX: usize = 16 << 20;

/// What is sent.
#[derive(Default)]
pub enum ForwardBody {
    #[default]
    Empty,
    Whole(Bytes),
    /// As it comes.
    Stream {
        body: RequestBody,
        /// Up to so many bytes are kept, so that they can be sent again.
        replay_max: u64,
    },
}

/// What the upstream answered.
///
/// Dropped before its end it cancels the call, and closes the upstream's connection. A body that breaks off ends with an
/// error.
#[derive(Debug)]
pub struct ForwardedBody(Content);

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Flowing(Flowing),
}

/// A body that is still on its way.
#[derive(Debug)]
struct Flowing {
    call: CallId,
    leaving: Leaving,
    flow: Flow,
}

/// The upstream's answer did not come whole, or was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's answer broke off")]
struct BrokenOff;

impl ForwardBody {
    /// All of it.
    pub(super) async fn collect(self) -> Result<Bytes, ForwardError> {
        match self {
            Self::Empty => Ok(Bytes::new()),
            Self::Whole(bytes) => Ok(bytes),
            Self::Stream { body, .. } => collected(body).await.map(Bytes::from),
        }
    }
}

async fn collected(mut body: RequestBody) -> Result<Vec<u8>, ForwardError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ForwardError::Rejected(format!("the body broke off: {error}")))?;
        let Ok(piece) = frame.into_data() else { continue };
        if bytes.len() + piece.len() > WHOLE_BYTES_MAX {
            return Err(ForwardError::Rejected(format!("the body has more than {WHOLE_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

impl std::fmt::Debug for ForwardBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Stream { replay_max, .. } => write!(f, "Stream(replay_max: {replay_max})"),
        }
    }
}

impl ForwardedBody {
    /// A body that is here already.
    pub(crate) const fn whole(rest: Bytes) -> Self {
        Self(Content::Whole(rest))
    }

    /// A body that comes.
    pub(crate) const fn flowing(flow: Flow, call: CallId, leaving: Leaving) -> Self {
        Self(Content::Flowing(Flowing { call, leaving, flow }))
    }
}

impl Body for ForwardedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Content::Whole(rest) => {
                let rest = std::mem::take(rest);
                Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
            }
            Content::Flowing(Flowing { flow, .. }) if flow.is_over() => Poll::Ready(None),
            Content::Flowing(Flowing { flow, .. }) => Poll::Ready(match ready!(flow.poll_piece(cx)) {
                Some(Piece::Data { bytes, .. }) => Some(Ok(Frame::data(bytes))),
                Some(Piece::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Some(Piece::End) => None,
                None => Some(Err(BrokenOff.into())),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Whole(rest) => rest.is_empty(),
            Content::Flowing(Flowing { flow, .. }) => flow.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(rest) => SizeHint::with_exact(rest.len() as u64),
            Content::Flowing(Flowing { flow, .. }) => flow.left().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Drop for Flowing {
    fn drop(&mut self) {
        // Of a body that has no end yet, or none that was taken, somebody may still send.
        if !self.flow.is_over() && self.flow.left().is_none() {
            self.leaving.abandon(self.call);
        }
    }
}
