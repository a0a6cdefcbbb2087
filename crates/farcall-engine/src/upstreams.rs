//! Upstreams as the engine knows them: the dispatcher's number, the configuration, the way there.
//!
//! Declared ones exist from the start; an undeclared one is made when the first call for its origin comes.

mod webhooks;

use std::collections::HashMap;
use std::sync::Arc;

use farcall_core::call::UpstreamId;
use farcall_core::dispatcher::Dispatcher;
use farcall_core::id_map::IdMap;
use farcall_core::limit::{Limits, Past, PastGrant};
use farcall_core::policy::{CallbackPolicy, UpstreamPolicy};
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_store::port::{ReadError, Reader};

use crate::config::{Config, Upstream};
use crate::document::UpstreamRef;
use crate::execute::http::{Resolver, Transport, TransportError, TransportSettings};

pub(crate) use webhooks::command_policy;

/// One upstream.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) reference: UpstreamRef,
    pub(crate) serves: Serves,
    pub(crate) settings: Arc<Upstream>,
    pub(crate) transport: Arc<Transport>,
}

/// What goes to an upstream of the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    Calls,
    /// Callbacks whose URLs belong to it.
    Webhooks,
}

/// All upstreams, by the dispatcher's number and by name.
#[derive(Debug)]
pub(crate) struct Upstreams {
    config: Arc<Config>,
    steady: SteadyClock,
    undeclared: Arc<Upstream>,
    resolver: Resolver,
    by_id: IdMap<UpstreamId, Known>,
    by_reference: HashMap<UpstreamRef, UpstreamId>,
    /// For webhooks.
    webhooks: HashMap<UpstreamRef, UpstreamId>,
}

/// What it takes to make an upstream.
pub(crate) struct Making<'a> {
    pub(crate) dispatcher: &'a mut Dispatcher,
    pub(crate) reader: &'a mut dyn Reader,
    pub(crate) now: Now,
}

/// Why an upstream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("upstream {name:?}")]
    Transport {
        name: String,
        #[source]
        source: TransportError,
    },
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Upstreams {
    pub(crate) fn new(config: Arc<Config>, steady: SteadyClock) -> Self {
        let undeclared = Arc::new(config.undeclared.clone());
        let (by_id, by_reference, webhooks) = (IdMap::default(), HashMap::new(), HashMap::new());
        Self { config, steady, undeclared, resolver: Resolver::default(), by_id, by_reference, webhooks }
    }

    /// Makes every declared upstream, with its limits as an earlier process left them.
    pub(crate) fn declare_all(&mut self, making: &mut Making<'_>) -> Result<(), UpstreamError> {
        let names: Vec<String> = self.config.upstreams.keys().cloned().collect();
        for name in names {
            self.resolve(&UpstreamRef::Declared(name), making)?;
        }
        Ok(())
    }

    /// The upstream of this name or origin, made when it is not there yet. A declared one that the configuration no
    /// longer has is made too, paused: its calls wait until it is declared again.
    pub(crate) fn resolve(
        &mut self,
        reference: &UpstreamRef,
        making: &mut Making<'_>,
    ) -> Result<UpstreamId, UpstreamError> {
        if let Some(&id) = self.by_reference.get(reference) {
            return Ok(id);
        }
        let declared = match reference {
            UpstreamRef::Declared(name) => self.config.upstreams.get(name),
            UpstreamRef::Undeclared(_) => None,
        };
        let is_missing = self.is_missing(reference);
        let settings = declared.map_or_else(|| Arc::clone(&self.undeclared), |upstream| Arc::new(upstream.clone()));
        let transport = transport(&settings, &self.resolver).map_err(|source| {
            let name = limit_key(reference).to_owned();
            UpstreamError::Transport { name, source }
        })?;
        let Making { dispatcher, reader, now } = making;
        let now = *now;
        let past = self.past(*reader, limit_key(reference), &settings.policy, now)?;
        let id = dispatcher.declare_restored(settings.policy.clone(), &past, now);
        if let Some(until) = reader.closed_until(limit_key(reference))? {
            dispatcher.restore_closing(id, self.steady.instant(until));
        }
        if is_missing {
            tracing::warn!(upstream = limit_key(reference), "calls wait for an upstream that is no longer configured");
            dispatcher.pause(id);
        }
        self.by_reference.insert(reference.clone(), id);
        let (transport, serves) = (Arc::new(transport), Serves::Calls);
        let known = Known { reference: reference.clone(), serves, settings: Arc::clone(&settings), transport };
        self.by_id.insert(id, known);
        // Only now: a callback may go to this very upstream, or to one whose callbacks come back here.
        let callbacks = CallbackPolicy {
            on_success: self.target(settings.callback_success.as_ref(), making)?,
            on_fail: self.target(settings.callback_fail.as_ref(), making)?,
        };
        making.dispatcher.set_callbacks(id, callbacks);
        Ok(id)
    }

    /// Whether the configuration no longer has it.
    fn is_missing(&self, reference: &UpstreamRef) -> bool {
        matches!(reference, UpstreamRef::Declared(name) if !self.config.upstreams.contains_key(name))
    }

    /// What was sent to an upstream within its longest window, by the store's account.
    fn past(
        &self,
        reader: &mut dyn Reader,
        limit_key: &str,
        policy: &UpstreamPolicy,
        now: Now,
    ) -> Result<Past, ReadError> {
        let certain_since = self.steady.certain_since();
        let Some(look) = Limits::look_back(policy, certain_since, now.instant) else { return Ok(Past::default()) };
        let grants = reader.grants(limit_key, self.steady.steady(look.since), look.count)?;
        let past = |proved_at| self.steady.instant(proved_at);
        let grants = grants.iter().map(|grant| PastGrant { cost: grant.cost, proved_at: grant.proved_at.map(past) });
        Ok(Past { certain_since, grants: grants.collect() })
    }

    /// The upstream of this name or origin, if it is there.
    pub(crate) fn find(&self, reference: &UpstreamRef, serves: Serves) -> Option<UpstreamId> {
        let known = match serves {
            Serves::Calls => &self.by_reference,
            Serves::Webhooks => &self.webhooks,
        };
        known.get(reference).copied()
    }

    pub(crate) fn get(&self, id: UpstreamId) -> Option<&Known> {
        self.by_id.get(&id)
    }

    /// Closes the connections that have been idle too long.
    pub(crate) fn prune(&self) {
        for known in self.by_id.values() {
            known.transport.prune();
        }
    }

    /// All of them, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (UpstreamId, &Known)> {
        let mut known: Vec<_> = self.by_id.iter().map(|(&id, known)| (id, known)).collect();
        known.sort_unstable_by_key(|&(id, _)| id);
        known.into_iter()
    }
}

/// What the limits of an upstream are counted by.
pub(crate) fn limit_key(reference: &UpstreamRef) -> &str {
    match reference {
        UpstreamRef::Declared(name) => name,
        UpstreamRef::Undeclared(origin) => origin,
    }
}

fn transport(settings: &Upstream, resolver: &Resolver) -> Result<Transport, TransportError> {
    Transport::new(&TransportSettings {
        resolver: resolver.clone(),
        connect_timeout: settings.connect_timeout,
        ca_file: settings.tls_ca.clone(),
        max_headers: settings.max_headers,
        ..TransportSettings::default()
    })
}
