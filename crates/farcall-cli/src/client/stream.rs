//! An answer that goes on for as long as somebody reads it, on a connection of its own.
//!
//! What comes in pieces is given on as it comes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::answer::Answer;
use super::connect::Open;
use super::{CONNECT_TIMEOUT, Request, SILENCE_MAX, Target, connect};
use crate::exit::Failure;

/// An answer that is being read.
#[derive(Debug)]
pub(crate) struct Stream {
    incoming: Incoming,
    _open: Open,
}

impl Stream {
    /// Asks, and reads as far as that it is an answer of success.
    ///
    /// # Errors
    /// When there is no answer (exit code 6), or it is none of success.
    pub(crate) async fn open(target: &Target, request: &Request) -> Result<Self, Failure> {
        let no_answer = |error: anyhow::Error| target.unreachable(error);
        let open = timeout(CONNECT_TIMEOUT, connect::open(target)).await;
        let open = open
            .map_err(|_| no_answer(anyhow::anyhow!("no connection in time")))
            .and_then(|open| open.map_err(no_answer));
        let mut open = open?;
        let answered = timeout(SILENCE_MAX, open.sender.send_request(request.message(target))).await;
        let response =
            answered.map_err(|_| no_answer(silent(SILENCE_MAX)))?.map_err(|error| no_answer(error.into()))?;
        if response.status().is_success() {
            return Ok(Self { incoming: response.into_body(), _open: open });
        }
        let refused = Answer::read(response, SILENCE_MAX).await.map_err(|_| no_answer(silent(SILENCE_MAX)))?;
        Err(refused.refusal(request, target))
    }

    /// The next piece; nothing when it has ended, broke off, or was silent for longer than servers are.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            let frame = timeout(SILENCE_MAX, self.incoming.frame()).await.ok()??.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }
}

fn silent(silence: Duration) -> anyhow::Error {
    anyhow::anyhow!("no answer for {} s", silence.as_secs())
}
