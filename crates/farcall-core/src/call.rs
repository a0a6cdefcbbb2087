//! What a call is, to the core: where it comes from, where it stands, how it may be treated.
//!
//! Only what decisions need. URLs, headers and bodies never come here; the engine keeps them.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::id::CallId;
use crate::retry::{OnUnknown, RetryPolicy, StatusSet};
use crate::time::{Instant, Timestamp};

/// Defines a closed set of words, the same in code, storage and answers.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$word_meta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$word_meta])* $variant),+ }

        impl $name {
            /// Every word, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word as users read it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The value of a word, or nothing for any other text.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// Where a call came in.
    Source {
        Inbox = "inbox", Api = "api", Bulk = "bulk", Batch = "batch", Callback = "callback",
        Proxy = "proxy", Route = "route", Library = "library",
    }
}

words! {
    /// How a call came in, which tells in whose name it acts.
    Via {
        /// A file, the socket, the library: the user who runs farcall, or what that call led to.
        User = "user",
        /// The network, by TCP: whoever reaches the port.
        Tcp = "tcp",
    }
}

words! {
    /// What is kept of a call.
    Durability {
        /// It is stored before it is acknowledged, and outlives the engine.
        Durable = "durable",
        /// Somebody waits for it on a connection: nothing of it is stored, and it ends with whoever waits.
        Ephemeral = "ephemeral",
    }
}

words! {
    /// Where a call stands. The last six are ends.
    State {
        /// Not before a time, and never tried.
        Scheduled = "scheduled",
        /// May start, and was never tried.
        Queued = "queued",
        /// At least one attempt is out.
        Running = "running",
        /// Was tried and waits, for any reason.
        Retrying = "retrying",
        Succeeded = "succeeded",
        Failed = "failed",
        Cancelled = "cancelled",
        /// Its deadline passed, whether it was sent or not.
        Expired = "expired",
        /// Bytes were sent, no answer came, and the policy says stop.
        Unknown = "unknown",
        /// Its function's process, or our handling of it, died three times.
        Poisoned = "poisoned",
    }
}

impl State {
    /// Whether a call in this state will never change again.
    pub const fn is_end(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired | Self::Unknown | Self::Poisoned
        )
    }
}

words! {
    /// Why a call that has not ended does not run.
    WaitReason {
        NotBefore = "not_before", Backoff = "backoff", RateLimit = "rate_limit", Concurrency = "concurrency",
        Cooldown = "cooldown", BreakerOpen = "breaker_open", Paused = "paused", Fairness = "fairness",
    }
}

words! {
    /// What went wrong, as `error.kind` tells it.
    ErrorKind {
        HttpStatus = "http_status", Connect = "connect", Tls = "tls", Dns = "dns", Timeout = "timeout",
        Deadline = "deadline", TooLarge = "too_large", RetryAfterTooLong = "retry_after_too_long",
        BlockedAddress = "blocked_address", Reset = "reset", Truncated = "truncated", Protocol = "protocol",
        Decode = "decode", Secret = "secret", Invalid = "invalid", Internal = "internal",
        ProcessExit = "process_exit", ProcessSignal = "process_signal", ProcessMemory = "process_memory",
        /// Only when the engine died while an attempt was out.
        Unknown = "unknown",
    }
}

/// A request method, as far as policy tells methods apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Put,
    Delete,
    Options,
    Trace,
    Post,
    Patch,
    /// Any other method of HTTP, or a process.
    Other,
}

impl Method {
    /// The policy class of a method's name.
    pub fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "POST" => Self::Post,
            "PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Its name, for the methods that have one here.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Other => return None,
        })
    }

    /// Whether RFC 9110, section 9.2.2 calls it idempotent.
    pub const fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

/// 1 goes first, 5 last; 3 is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// How many priorities there are.
    pub const LEVELS: usize = 5;

    /// The priority of this number, or nothing outside 1 to 5.
    pub const fn new(level: u8) -> Option<Self> {
        if level >= 1 && level <= 5 { Some(Self(level)) } else { None }
    }

    /// Its number, 1 to 5.
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(3)
    }
}

/// The place of an upstream in the dispatcher's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(pub u32);

/// The place of a quota in the dispatcher's table: what one other side allows to all that goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaId(pub u32);

/// A digest of a tenant's name; 0 is the tenant of calls that name none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TenantId(pub u64);

/// What a call sets for itself, over its upstream's policy.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overrides {
    /// The longest one attempt may take.
    pub timeout: Option<Duration>,
    pub retry: Option<RetryPolicy>,
    pub on_unknown: Option<OnUnknown>,
    pub idempotent: Option<bool>,
    pub success_statuses: Option<StatusSet>,
}

/// A callback waits for its parent to be filed when the parent came from a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallbackOf {
    pub parent: CallId,
    /// Held back until `Event::Filed` of the parent.
    pub held: bool,
}

/// A call as the dispatcher sees it when it is accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct CallSpec {
    pub id: CallId,
    pub upstream: UpstreamId,
    pub source: Source,
    pub durability: Durability,
    pub method: Method,
    pub priority: Priority,
    pub tenant: TenantId,
    /// Slots of every window that one attempt takes.
    pub cost: NonZeroU32,
    pub accepted_at: Timestamp,
    pub not_before: Option<Instant>,
    pub deadline: Option<Instant>,
    pub overrides: Option<Box<Overrides>>,
    /// The call came from a file: its callbacks wait until it is filed.
    pub has_file: bool,
    /// Where its own callback goes, at whichever end, beside that of its upstream's policy.
    pub callback: Option<UpstreamId>,
    pub callback_of: Option<CallbackOf>,
}
