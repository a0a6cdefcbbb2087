//! A panic in a handler ends its own request and nothing else.
//!
//! The connection lives on, and its client is told; what the panic said goes to the log.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future whose panic is its result.
pub(crate) struct Caught<F> {
    inner: Pin<Box<F>>,
}

/// What a handler said when it panicked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panicked {
    pub(crate) message: String,
}

/// Runs `future`; what it shares with others must bear being left half done.
pub(crate) fn caught<F: Future>(future: F) -> Caught<F> {
    Caught { inner: Box::pin(future) }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.inner.as_mut();
        match catch_unwind(AssertUnwindSafe(|| inner.poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(payload) => Poll::Ready(Err(Panicked { message: message(payload.as_ref()) })),
        }
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_result_with_what_was_said() {
        let panicked = |message: &str| Err(Panicked { message: message.to_owned() });
        assert_eq!(caught(async { 1 }).await, Ok(1));
        assert_eq!(caught(async { panic!("a text") }).await, panicked("a text") as Result<(), _>);
        let number = 7;
        assert_eq!(caught(async { panic!("number {number}") }).await, panicked("number 7") as Result<(), _>);
        assert_eq!(caught(async { std::panic::panic_any(number) }).await, panicked("no message") as Result<(), _>);
    }
}
