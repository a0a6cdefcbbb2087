//! What the dispatcher is told.
//!
//! Events report and decide nothing; each carries the time at which it happened where that matters to the limits.

use super::Seq;
use super::load::Loaded;
use super::prune::{StaleAsk, StaleCall};
use crate::attempt::{AttemptResult, BytesSent};
use crate::call::CallSpec;
use crate::id::{AttemptId, CallId};
use crate::time::Instant;

/// Something that happened outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A new call. Whoever offers a durable one waits for `Effect::Acknowledge` or `Effect::Refuse`; an ephemeral one is
    /// taken.
    Offered(Box<CallSpec>),
    /// An attempt is being made: its timeout counts from now, however long its write took.
    Launched { attempt: AttemptId },
    /// The last byte of an attempt's request left our buffers.
    Sent { attempt: AttemptId, at: Instant },
    /// The first byte of its answer arrived.
    FirstByte { attempt: AttemptId, at: Instant },
    /// An attempt ended by itself.
    Finished { attempt: AttemptId, result: AttemptResult },
    /// An attempt was cut off after `Effect::Abort`.
    Aborted { attempt: AttemptId, wrote: BytesSent },
    /// Every write of the turns up to this one is durable.
    Committed { seq: Seq },
    /// Nothing of this turn is durable, nor of any handed over after it.
    CommitFailed { seq: Seq },
    /// Somebody wants the call to end. It ends `cancelled` if nothing of it will be sent any more, else as it really ends.
    Cancel { call: CallId },
    /// Nobody waits for this ephemeral call any more: it ends at once, and what is out of it is cut off.
    Abandoned { call: CallId },
    /// The response file and the request file of a call are in place.
    Filed { call: CallId },
    /// What `Effect::Load` asked for.
    Loaded(Box<Loaded>),
    /// What `Effect::Load` asked for cannot be read just now.
    LoadFailed,
    /// How much the store holds, as of what comes with the next `StaleFound`. Only wanted when there is a limit to it.
    Stored { bytes: u64 },
    /// What `Effect::FindStale` asked for.
    StaleFound { ask: StaleAsk, found: Vec<StaleCall> },
    /// What `Effect::FindStale` asked for cannot be read just now.
    StaleUnread,
    /// Start nothing more; cut off at `until` what is still out.
    Drain { until: Instant },
}
