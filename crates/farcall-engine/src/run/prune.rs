//! Looking for calls that ended longer ago than they are kept, when the dispatcher asks. What goes, and when, is decided
//! there.

use std::sync::Arc;
use std::time::Duration;

use farcall_core::dispatcher::{Event, Stale, StaleAsk, StaleCall};
use farcall_core::retention::Retention;
use farcall_core::steady::SteadyClock;
use farcall_store::port::{Ended, EndedRange, ReadError, Reader};
use farcall_store::record::EndedRecord;

use super::{Message, Run};
use crate::cause::chain;
use crate::clock;
use crate::config::{Config, Upstream};

/// How long calls are kept under a configuration.
pub(super) fn retention(config: &Config, steady: &SteadyClock) -> Retention {
    let windows = |upstream: &Upstream| upstream.policy.limits.iter().map(|limit| limit.window).max();
    let upstreams = config.upstreams.values().chain(config.origins.values()).chain([&config.undeclared]);
    Retention {
        succeeded: config.retention.succeeded,
        failed: config.retention.failed,
        bytes_max: config.retention.max_size,
        window_max: upstreams.filter_map(windows).max().unwrap_or(Duration::ZERO),
        certain_since: steady.certain_since(),
    }
}

impl Run {
    /// Begins to look for what the dispatcher wants.
    pub(super) fn find_stale(&self) {
        let Some(&ask) = self.dispatcher.stale_wanted() else { return };
        let (range, has_limit) = (self.range(ask), self.config.retention.max_size.is_some());
        let (reads, messages) = (Arc::clone(&self.prune_reads), self.sender.clone());
        self.tasks.spawn(async move {
            let read = move |reader: &mut dyn Reader| {
                let found = reader.ended(&range)?;
                Ok((found, if has_limit { Some(reader.stored_bytes()?) } else { None }))
            };
            let reading = async move { reads.with(read).await };
            let read = tokio::spawn(reading).await.unwrap_or_else(|_| Err(broke_down()));
            let (found, stored_bytes) = match read {
                Ok((found, stored_bytes)) => (Ok(found), stored_bytes),
                Err(error) => (Err(error), None),
            };
            // A loop that is gone needs nothing more.
            let _ = messages.send(Message::StaleFound { ask, stored_bytes, found }).await;
        });
    }

    pub(super) fn stale_found(
        &mut self,
        ask: StaleAsk,
        stored_bytes: Option<u64>,
        found: Result<Vec<EndedRecord>, ReadError>,
    ) {
        if let Some(bytes) = stored_bytes {
            self.dispatcher.handle(clock::now(), Event::Stored { bytes });
        }
        let event = match found {
            Ok(found) => Event::StaleFound { ask, found: found.iter().map(|ended| self.stale_call(ended)).collect() },
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot look for calls to prune, trying again");
                Event::StaleUnread
            }
        };
        self.dispatcher.handle(clock::now(), event);
    }

    fn stale_call(&self, ended: &EndedRecord) -> StaleCall {
        let EndedRecord { call, ended_at, is_held } = *ended;
        StaleCall { call, ended_at: self.steady.instant(ended_at), is_held }
    }

    fn range(&self, ask: StaleAsk) -> EndedRange {
        let StaleAsk { of, until, after, count } = ask;
        EndedRange {
            of: match of {
                Stale::Keys => Ended::Keyed,
                Stale::Calls(state) => Ended::Unkeyed(state),
            },
            until: self.steady.steady(until),
            after: after.map(|(at, call)| (self.steady.steady(at), call)),
            count,
        }
    }
}

/// A read that panicked has failed like one that says so, or nothing would be pruned ever again.
fn broke_down() -> ReadError {
    ReadError { what: "ended calls", source: "the read broke down".into() }
}
