//! Who waits to hear of a call: that it has ended, or what came of cancelling it.
//!
//! Bounded in number. Whoever goes away is forgotten when room is needed, and from time to time.

use farcall_core::id::CallId;
use farcall_core::id_map::IdMap;
use tokio::sync::oneshot;

use super::events::Events;

/// Most that wait for ends at a time.
const WATCHERS_MAX: usize = 10_000;

/// What came of the wish to cancel a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CancelAnswer {
    /// It has ended, by this or otherwise.
    Ended,
    /// An attempt that may have been sent decides how it ends.
    Noted,
    /// It had ended before, or is unknown.
    Missed,
    /// Too many wait already.
    Busy,
    /// Farcall is stopping.
    Stopping,
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    ends: IdMap<CallId, Vec<oneshot::Sender<()>>>,
    cancels: IdMap<CallId, Vec<oneshot::Sender<CancelAnswer>>>,
    count: usize,
    /// For those who follow everything.
    pub(super) events: Events,
}

impl Watchers {
    /// Hears of the end of a call. Without room the sender is dropped at once.
    pub(super) fn watch(&mut self, call: CallId, reply: oneshot::Sender<()>) {
        if self.has_room() {
            self.ends.entry(call).or_default().push(reply);
            self.count += 1;
        }
    }

    /// Hears what comes of cancelling a call; false when there is no room.
    pub(super) fn ask(&mut self, call: CallId, reply: oneshot::Sender<CancelAnswer>) -> bool {
        if !self.has_room() {
            let _ = reply.send(CancelAnswer::Busy);
            return false;
        }
        self.cancels.entry(call).or_default().push(reply);
        self.count += 1;
        true
    }

    pub(super) fn ended(&mut self, call: CallId) {
        for reply in self.ends.remove(&call).unwrap_or_default() {
            self.count -= 1;
            let _ = reply.send(());
        }
        self.tell(call, CancelAnswer::Ended);
    }

    pub(super) fn tell(&mut self, call: CallId, told: CancelAnswer) {
        for reply in self.cancels.remove(&call).unwrap_or_default() {
            self.count -= 1;
            let _ = reply.send(told);
        }
    }

    /// Forgets whoever has gone away.
    pub(super) fn sweep(&mut self) {
        self.ends.retain(|_, replies| {
            replies.retain(|reply| !reply.is_closed());
            !replies.is_empty()
        });
        self.cancels.retain(|_, replies| {
            replies.retain(|reply| !reply.is_closed());
            !replies.is_empty()
        });
        self.count =
            self.ends.values().map(Vec::len).sum::<usize>() + self.cancels.values().map(Vec::len).sum::<usize>();
    }

    fn has_room(&mut self) -> bool {
        if self.count >= WATCHERS_MAX {
            self.sweep();
        }
        self.count < WATCHERS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_went_away_leaves_room() {
        let mut watchers = Watchers::default();
        let call = CallId::from_bits(1);
        let kept: Vec<_> = (0..WATCHERS_MAX)
            .map(|_| {
                let (reply, answer) = oneshot::channel();
                watchers.watch(call, reply);
                answer
            })
            .collect();
        let (reply, mut crowded) = oneshot::channel();
        assert!(!watchers.ask(call, reply));
        assert_eq!(crowded.try_recv(), Ok(CancelAnswer::Busy));
        drop(kept);
        let (reply, mut heard) = oneshot::channel();
        assert!(watchers.ask(call, reply));
        watchers.ended(call);
        assert_eq!(heard.try_recv(), Ok(CancelAnswer::Ended));
        assert_eq!(watchers.count, 0);
    }
}
