//! What attempts tell the loop. It comes often, and is heard in one go where nothing is lost by that.
//!
//! While the writer commits, all that the loop could do is to queue more for the next commit: the loop is woken for many
//! reports then, not for each, and by the end of the commit for what is left. Bounded by the attempts that are out, each
//! of which tells three things at most.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use farcall_core::id::{AttemptId, CallId};
use farcall_core::time::Instant;

use super::runners::Runner;
use crate::execute::Report;
use crate::journal::Writing;
use crate::redirect::Next;

/// What is told while the writer commits before the loop is woken.
const TOGETHER: usize = 8;

/// What was told and not heard.
#[derive(Debug)]
pub(super) struct News {
    state: Mutex<State>,
    writing: Writing,
}

#[derive(Debug, Default)]
struct State {
    told: Vec<Told>,
    /// The loop is to hear it.
    is_due: bool,
    /// The loop, while it waits.
    waits: Option<Waker>,
    is_closed: bool,
}

/// From an attempt.
#[derive(Debug)]
pub(super) enum Told {
    Sent {
        attempt: AttemptId,
        at: Instant,
    },
    FirstByte {
        attempt: AttemptId,
        at: Instant,
    },
    /// Nobody waits for this call any more.
    Abandoned {
        call: CallId,
    },
    Reported {
        attempt: AttemptId,
        report: Box<Report>,
        /// What its answer asks for, when that may be followed.
        next: Option<Next>,
        /// Who made it.
        runner: Runner,
    },
}

impl News {
    pub(super) fn new(writing: Writing) -> Self {
        Self { state: Mutex::default(), writing }
    }

    /// Tells the loop. One that is gone has cut everything off; its successor finds the attempt open.
    pub(super) fn tell(&self, told: Told) {
        let mut state = self.lock();
        if state.is_closed {
            return;
        }
        state.told.push(told);
        // Asked under the lock: a commit that ends after this wakes the loop, which then finds what was told.
        state.is_due |= state.told.len() >= TOGETHER || !self.writing.is_under_way();
        let woken = if state.is_due { state.waits.take() } else { None };
        drop(state);
        if let Some(waker) = woken {
            waker.wake();
        }
    }

    /// Waits until the loop is to hear what was told.
    pub(super) async fn wait(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.is_due {
                return Poll::Ready(());
            }
            state.waits = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// All that was told, in order, in the place of what `heard` holds.
    pub(super) fn hear(&self, heard: &mut Vec<Told>) {
        heard.clear();
        let mut state = self.lock();
        state.is_due = false;
        std::mem::swap(&mut state.told, heard);
    }

    /// Nobody hears anything any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let told = std::mem::take(&mut state.told);
        drop(state);
        drop(told);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;

    use super::*;

    fn sent(number: u32) -> Told {
        Told::Sent { attempt: AttemptId { call: CallId::from_bits(1), number }, at: Instant::from_micros(0) }
    }

    /// Whether the loop is to hear what was told.
    async fn is_woken(news: &News) -> bool {
        let mut waiting = pin!(news.wait());
        poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_ready())).await
    }

    #[tokio::test]
    async fn the_loop_hears_at_once_what_is_told_while_nothing_is_written() {
        let news = News::new(Writing::default());
        assert!(!is_woken(&news).await);
        news.tell(sent(1));
        assert!(is_woken(&news).await);
    }

    #[tokio::test]
    async fn during_a_commit_the_loop_is_woken_for_many_only() {
        let writing = Writing::default();
        let news = News::new(writing.clone());
        writing.begin();
        for number in 1..TOGETHER {
            news.tell(sent(number as u32));
        }
        assert!(!is_woken(&news).await);
        news.tell(sent(0));
        assert!(is_woken(&news).await);
        let mut heard = vec![sent(99)];
        news.hear(&mut heard);
        assert_eq!(heard.len(), TOGETHER);
        assert!(matches!(heard[0], Told::Sent { attempt: AttemptId { number: 1, .. }, .. }), "in order");
        writing.end();
        news.tell(sent(1));
        assert!(is_woken(&news).await);
    }

    #[tokio::test]
    async fn what_is_told_to_nobody_is_dropped() {
        let news = News::new(Writing::default());
        news.tell(sent(1));
        news.close();
        news.tell(sent(2));
        let mut heard = Vec::new();
        news.hear(&mut heard);
        assert!(heard.is_empty());
    }
}
