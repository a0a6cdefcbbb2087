//! The configuration once it is known to be right: resolved, typed, with every default filled in.
//!
//! Made by the loader next door; everything else only reads it. Secret references stay references here and are
//! resolved when a request is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::call::{State, Via};
use farcall_core::policy::UpstreamPolicy;
use farcall_core::retention::Retention;
use farcall_core::retry::StatusSet;
use url::Url;

use super::declared::Declared;
use super::patch::Written;
use super::route::Routes;
use super::{base_url, root};
use crate::secret::Template;

/// Everything a directory's configuration says.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The file it was read from, if there is one.
    pub path: Option<PathBuf>,
    pub server: Server,
    pub store: StoreSettings,
    pub inbox: Inbox,
    pub retention: RetentionSettings,
    pub upstreams: Declared,
    /// The policy of every undeclared upstream.
    pub undeclared: Upstream,
    /// Undeclared upstreams whose policy was patched, by origin.
    pub origins: BTreeMap<String, Arc<Upstream>>,
    /// Paths of this server whose requests go to upstreams.
    pub routes: Routes,
    /// What the file says of upstreams, for patches to lie over.
    pub written: Written,
    /// Variables of the environment that secrets are read from; no program that we start is given them.
    pub secret_variables: BTreeSet<String>,
    /// The file is Kofaf's: its defaults hold.
    pub is_kofaf: bool,
}

/// The HTTP face. `Debug` leaves the tokens out.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    pub listen: Listen,
    /// Resolved at load; without any the server listens on loopback only.
    pub tokens: Vec<String>,
    pub drain_timeout: Duration,
    /// Largest call document, in bytes.
    pub max_body: u64,
}

/// Where the API is served beside the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// The socket only.
    None,
    /// `host:port`.
    Address(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Relative to the working directory.
    pub path: PathBuf,
    /// Intake refuses below this many free bytes.
    pub min_free: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbox {
    /// How long a file that does not parse is left alone after its last change.
    pub settle: Duration,
    /// The age at which the files in `requests/`, `responses/` and `rejected/` are removed; nothing for never.
    pub keep: Option<Duration>,
}

/// How long calls are kept after their end; nothing for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Calls that succeeded or were cancelled.
    pub succeeded: Option<Duration>,
    /// All others.
    pub failed: Option<Duration>,
    /// Bytes that the store may hold before calls go before their time.
    pub max_size: Option<u64>,
}

/// One upstream with its policy and what only the executor needs.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Nothing for the template of undeclared upstreams.
    pub base_url: Option<Url>,
    pub policy: UpstreamPolicy,
    /// From acceptance, for calls that set none.
    pub deadline: Option<Duration>,
    pub connect_timeout: Duration,
    /// Header names in lower case.
    pub headers: Vec<(String, Template)>,
    pub success: Success,
    /// A certificate authority file beside the platform's roots.
    pub tls_ca: Option<PathBuf>,
    /// The URL of a forward proxy; what it is when it is used is read by [`Proxy::parse`](crate::proxy::Proxy::parse).
    pub proxy: Option<Template>,
    /// Largest decoded answer body, in bytes.
    pub max_response: u64,
    pub max_headers: HeaderCaps,
    /// Nothing when neither the upstream nor the defaults say.
    pub addresses: Option<Addresses>,
    /// Requests that are passed on tell it who asked (`X-Forwarded-*`).
    pub forwarded: bool,
    /// The name of the idempotency header; empty sends none.
    pub idempotency_header: String,
    pub callback_success: Option<CallbackAction>,
    pub callback_fail: Option<CallbackAction>,
}

/// What counts as success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Success {
    pub statuses: StatusSet,
    /// A media type without parameters, lower case; nothing allows any.
    pub content_type: Option<String>,
}

/// Which addresses connections may be opened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Addresses {
    #[default]
    Any,
    /// Those on the public internet: no loopback, private, link-local, metadata or other special ones.
    Public,
}

/// Caps on the head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderCaps {
    pub bytes: u32,
    pub fields: u16,
}

/// What a callback does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallbackAction {
    Command(CommandLine),
    Webhook(Webhook),
}

/// A URL that is told outcomes. `Debug` leaves the secrets out.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    pub url: Url,
    /// What it is signed with, each a signature of its own; none is no signature.
    pub secrets: Vec<Template>,
}

/// A callback's command, split into words by shell quoting rules; placeholders not yet put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    pub words: Vec<String>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url.as_str()).field("secrets", &self.secrets.len()).finish()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listen", &self.listen)
            .field("tokens", &self.tokens.len())
            .field("drain_timeout", &self.drain_timeout)
            .field("max_body", &self.max_body)
            .finish()
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: Listen::Address("127.0.0.1:8888".to_owned()),
            tokens: Vec::new(),
            drain_timeout: Duration::from_secs(30),
            max_body: 16 << 20,
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { path: PathBuf::from(".farcall"), min_free: 256 << 20 }
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self { settle: Duration::from_secs(2), keep: None }
    }
}

impl Default for RetentionSettings {
    fn default() -> Self {
        let Retention { succeeded, failed, .. } = Retention::default();
        Self { succeeded, failed, max_size: None }
    }
}

impl Default for HeaderCaps {
    fn default() -> Self {
        Self { bytes: 64 << 10, fields: 100 }
    }
}

impl Default for Success {
    fn default() -> Self {
        Self { statuses: StatusSet::success(), content_type: None }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            base_url: None,
            policy: UpstreamPolicy::default(),
            deadline: None,
            connect_timeout: Duration::from_secs(5),
            headers: Vec::new(),
            success: Success::default(),
            tls_ca: None,
            proxy: None,
            max_response: 16 << 20,
            max_headers: HeaderCaps::default(),
            addresses: None,
            forwarded: false,
            idempotency_header: "Idempotency-Key".to_owned(),
            callback_success: None,
            callback_fail: None,
        }
    }
}

impl Config {
    /// Declares an upstream beside those of the file, with the settings of undeclared ones.
    ///
    /// # Errors
    /// When that cannot be its name, or one of this name or base URL is declared already.
    pub fn declare(&mut self, name: &str, base_url: Url) -> Result<(), DeclareError> {
        if let Some(message) = root::mistake_in_name(name) {
            return Err(DeclareError::Name(message));
        }
        let normalised = base_url::normalised(&base_url);
        let is_same =
            |upstream: &Upstream| upstream.base_url.as_ref().map(base_url::normalised) == Some(normalised.clone());
        if let Some((first, _)) = self.upstreams.iter().find(|(own, upstream)| *own == name || is_same(upstream)) {
            return Err(DeclareError::Taken { first: first.to_owned() });
        }
        let upstream = Upstream { base_url: Some(base_url), ..self.undeclared.clone() };
        self.upstreams.insert(name, upstream);
        Ok(())
    }
}

/// Why an upstream was not declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    #[error("{0}")]
    Name(String),
    #[error("the configured upstream `{first}` has that name or that base URL")]
    Taken { first: String },
}

impl Upstream {
    /// What its calls do when they end in this state.
    pub const fn callback_at(&self, end: State) -> Option<&CallbackAction> {
        match end {
            State::Succeeded => self.callback_success.as_ref(),
            _ => self.callback_fail.as_ref(),
        }
    }

    /// Which addresses a call may be sent to that came in this way. Whoever declared an upstream chose its address; to
    /// an undeclared one the network may not send calls that reach what only this machine does.
    pub fn addresses_for(&self, via: Via) -> Addresses {
        let is_declared = self.base_url.is_some();
        self.addresses.unwrap_or(match via {
            Via::Tcp if !is_declared => Addresses::Public,
            Via::Tcp | Via::User => Addresses::Any,
        })
    }

    /// The concurrency bound in force for durable calls.
    pub fn durable_concurrency(&self) -> NonZeroU32 {
        self.policy
            .concurrency
            .unwrap_or(const { NonZeroU32::new(UpstreamPolicy::DURABLE_CONCURRENCY).expect("16 is not zero") })
    }
}
