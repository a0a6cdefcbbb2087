//! An attempt whose task panics still reports: else its call would run for ever, and its slots never cool.
//!
//! What it had sent by then nobody knows, so bytes may have left. After three such deaths, counted over restarts, the
//! dispatcher ends the call `poisoned`, if nothing ended it before.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use farcall_core::attempt::BytesSent;
use farcall_core::call::ErrorKind;

use super::attempts::{Made, failed};

/// What an attempt came to, or that it died.
///
/// It is taken where it lies: a future that is handed on is copied, and attempts are large.
pub(super) async fn made(attempt: Pin<&mut impl Future<Output = Made>>) -> Made {
    let broke_down = || failed(ErrorKind::Internal, BytesSent::Maybe, "the attempt broke down".to_owned()).into();
    survived(attempt).await.unwrap_or_else(broke_down)
}

/// What a piece of work comes to; nothing when it panics.
pub(crate) async fn survived<T>(mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    // What a panic leaves behind is not looked at again: the future is dropped.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn an_attempt_that_panics_is_reported_as_perhaps_sent() {
        let Made { report, .. } = made(pin!(async {
            tokio::task::yield_now().await;
            panic!("a mistake of ours")
        }))
        .await;
        assert_eq!((report.result.error, report.result.bytes_sent), (Some(ErrorKind::Internal), BytesSent::Maybe));
        assert!(!report.aborted);
    }
}
