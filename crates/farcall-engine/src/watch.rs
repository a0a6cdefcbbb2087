//! Following calls: waiting for the end of one, and hearing of everything that happens to any, and of breakers.
//!
//! Of calls is told what is durable. Whoever is too slow misses events and hears how many.

use farcall_core::breaker::BreakerState;
use farcall_core::call::{ErrorKind, State};
use farcall_core::id::CallId;
use farcall_core::time::Timestamp;
use tokio::sync::{broadcast, oneshot};

use crate::handle::Handle;
use crate::run::Message;

/// Something that has happened to a call, and is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallEvent {
    pub call: CallId,
    /// The declared upstream that it belongs to or, when an attempt starts, that this goes to.
    pub upstream: Option<String>,
    pub at: Timestamp,
    pub what: Happened,
}

/// The breaker of an upstream has opened, or closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerEvent {
    /// Its name, or its origin when it is not declared.
    pub upstream: String,
    pub at: Timestamp,
    pub state: BreakerState,
    /// When a probe may go, if it has opened.
    pub until: Option<Timestamp>,
}

/// What is told to whoever follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Event(CallEvent),
    Breaker(BreakerEvent),
    /// So many that were decided while nobody followed are durable now.
    Untold(u64),
}

/// What has happened to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    Accepted {
        state: State,
    },
    Started {
        attempt: u32,
    },
    /// Its attempt ended, and it goes on later.
    Waits {
        state: State,
        status: Option<u16>,
        next_at: Option<Timestamp>,
    },
    Ended {
        state: State,
        status: Option<u16>,
        error: Option<ErrorKind>,
    },
}

impl Happened {
    /// The state of the call from then on.
    pub const fn state(&self) -> State {
        match self {
            Self::Accepted { state } | Self::Waits { state, .. } | Self::Ended { state, .. } => *state,
            Self::Started { .. } => State::Running,
        }
    }

    /// One word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Started { .. } => "started",
            Self::Waits { .. } => "waiting",
            Self::Ended { .. } => "ended",
        }
    }
}

/// The end of a call, awaited.
#[derive(Debug)]
pub struct End(oneshot::Receiver<()>);

/// Everything that happens from now on.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<News>);

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Event(CallEvent),
    Breaker(BreakerEvent),
    /// So many came and went before they could be told.
    Missed(u64),
}

impl End {
    /// Waits for it. False when nobody will tell: too many wait, or farcall stops.
    pub async fn wait(&mut self) -> bool {
        (&mut self.0).await.is_ok()
    }
}

impl Events {
    /// The next, or nothing when farcall has stopped.
    pub async fn next(&mut self) -> Option<Next> {
        match self.0.recv().await {
            Ok(News::Event(event)) => Some(Next::Event(event)),
            Ok(News::Breaker(event)) => Some(Next::Breaker(event)),
            Ok(News::Untold(count)) => Some(Next::Missed(count)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Next::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Handle {
    /// The end of a call that has not ended yet; that of one which has, or is unknown, never comes. So look at the call
    /// after this, and wait when it has not ended.
    pub async fn end_of(&self, call: CallId) -> End {
        let (reply, end) = oneshot::channel();
        // A loop that is gone drops the reply.
        let _ = self.messages.send(Message::Watch { call, reply }).await;
        End(end)
    }

    /// Everything that happens to any call, or to a breaker, from now on.
    pub fn events(&self) -> Events {
        Events(self.news.subscribe())
    }
}
