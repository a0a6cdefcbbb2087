//! An attempt whose task panics still reports: else its call would run for ever, and its slots never cool.
//!
//! What it had sent by then nobody knows, so bytes may have left. After three such deaths in one life of the engine the
//! dispatcher ends the call `poisoned`, if nothing ended it before.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use farcall_core::attempt::BytesSent;
use farcall_core::call::ErrorKind;

use super::attempts::{Made, failed};

/// What an attempt came to, or that it died.
pub(super) async fn made(attempt: impl Future<Output = Made>) -> Made {
    let broke_down = || failed(ErrorKind::Internal, BytesSent::Maybe, "the attempt broke down".to_owned()).into();
    survived(attempt).await.unwrap_or_else(broke_down)
}

/// What a piece of work comes to; nothing when it panics.
pub(super) async fn survived<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    // What a panic leaves behind is not looked at again: the future is dropped.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_attempt_that_panics_is_reported_as_perhaps_sent() {
        let Made { report, .. } = made(async {
            tokio::task::yield_now().await;
            panic!("a mistake of ours")
        })
        .await;
        assert_eq!((report.result.error, report.result.bytes_sent), (Some(ErrorKind::Internal), BytesSent::Maybe));
        assert!(!report.aborted);
    }
}
