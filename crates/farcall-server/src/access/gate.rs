//! The rule that holds now: tokens come and go while the listener stays.
//!
//! Every request is judged by the configuration of its own moment; what was let in before goes on.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use farcall_engine::Handle;
use farcall_engine::config::Config;

use super::Access;

/// Who may come in at one listener.
#[derive(Debug, Clone)]
pub(crate) enum Gate {
    /// The socket.
    User(Arc<Access>),
    Tcp(Arc<Tcp>),
}

/// A TCP listener, and the rule that was made of the configuration last.
#[derive(Debug)]
pub(crate) struct Tcp {
    handle: Handle,
    is_loopback: bool,
    rule: RwLock<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    config: Arc<Config>,
    access: Arc<Access>,
}

impl Gate {
    pub(crate) fn user() -> Self {
        Self::User(Arc::new(Access::User))
    }

    /// That of the listener at this address.
    pub(crate) fn tcp(handle: Handle, address: SocketAddr) -> Self {
        let config = handle.config();
        let access = Arc::new(Access::tcp(&config.server.tokens));
        let is_loopback = address.ip().is_loopback();
        Self::Tcp(Arc::new(Tcp { handle, is_loopback, rule: RwLock::new(Rule { config, access }) }))
    }

    /// The rule of this moment.
    pub(crate) fn now(&self) -> Arc<Access> {
        match self {
            Self::User(access) => Arc::clone(access),
            Self::Tcp(tcp) => tcp.access(),
        }
    }
}

impl Tcp {
    fn access(&self) -> Arc<Access> {
        let config = self.handle.config();
        let known = self.rule.read().unwrap_or_else(PoisonError::into_inner).clone();
        if Arc::ptr_eq(&known.config, &config) {
            return known.access;
        }
        let tokens = &config.server.tokens;
        // A listener that others reach is never left without tokens: those it had go on holding.
        let is_changed = *tokens != known.config.server.tokens && (self.is_loopback || !tokens.is_empty());
        let access = if is_changed { Arc::new(Access::tcp(tokens)) } else { known.access };
        *self.rule.write().unwrap_or_else(PoisonError::into_inner) = Rule { config, access: Arc::clone(&access) };
        access
    }
}
