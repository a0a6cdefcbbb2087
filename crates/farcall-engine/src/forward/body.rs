//! Bodies of calls that somebody waits for: what is sent, and what is given back.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use super::ForwardError;

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
#[derive(Debug)]
pub struct ForwardedBody {
    rest: Bytes,
}

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
        Self { rest }
    }
}

impl Body for ForwardedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let rest = std::mem::take(&mut self.get_mut().rest);
        Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
