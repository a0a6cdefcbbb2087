//! Upstreams as the engine knows them: the dispatcher's number, the configuration, the way there.
//!
//! Declared ones exist from the start; an undeclared one is made when the first call for its origin comes.

use std::collections::HashMap;
use std::num::NonZeroI64;
use std::sync::Arc;

use farcall_core::call::UpstreamId;
use farcall_core::dispatcher::Dispatcher;
use farcall_core::limit::{Ask, Limits, Past, PastGrant};
use farcall_core::policy::CallbackPolicy;
use farcall_core::steady::SteadyClock;
use farcall_core::time::Now;
use farcall_store::port::{GrantsAsk, ReadError, Reader};

use crate::config::{Config, Upstream};
use crate::document::UpstreamRef;
use crate::execute::http::{Resolver, Transport, TransportError, TransportSettings};

/// One upstream.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) reference: UpstreamRef,
    pub(crate) settings: Arc<Upstream>,
    pub(crate) transport: Arc<Transport>,
}

/// All upstreams, by the dispatcher's number and by name.
#[derive(Debug)]
pub(crate) struct Upstreams {
    config: Arc<Config>,
    steady: SteadyClock,
    undeclared: Arc<Upstream>,
    resolver: Resolver,
    by_id: HashMap<UpstreamId, Known>,
    by_reference: HashMap<UpstreamRef, UpstreamId>,
}

/// What an upstream is about to become.
struct Change {
    settings: Arc<Upstream>,
    transport: Arc<Transport>,
    past: Past,
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
        let (by_id, by_reference) = (HashMap::new(), HashMap::new());
        Self { config, steady, undeclared, resolver: Resolver::default(), by_id, by_reference }
    }

    /// Makes every declared upstream, with its limits as an earlier process left them.
    pub(crate) fn declare_all(
        &mut self,
        dispatcher: &mut Dispatcher,
        reader: &mut dyn Reader,
        now: Now,
    ) -> Result<(), UpstreamError> {
        let names: Vec<String> = self.config.upstreams.keys().cloned().collect();
        for name in names {
            self.resolve(&UpstreamRef::Declared(name), dispatcher, reader, now)?;
        }
        Ok(())
    }

    /// The upstream of this name or origin, made when it is not there yet. A declared one that the configuration no
    /// longer has is made too, paused: its calls wait until it is declared again.
    pub(crate) fn resolve(
        &mut self,
        reference: &UpstreamRef,
        dispatcher: &mut Dispatcher,
        reader: &mut dyn Reader,
        now: Now,
    ) -> Result<UpstreamId, UpstreamError> {
        if let Some(&id) = self.by_reference.get(reference) {
            return Ok(id);
        }
        let declared = match reference {
            UpstreamRef::Declared(name) => self.config.upstreams.get(name),
            UpstreamRef::Undeclared(_) => None,
        };
        let is_missing = declared.is_none() && matches!(reference, UpstreamRef::Declared(_));
        let settings = declared.map_or_else(|| Arc::clone(&self.undeclared), |upstream| Arc::new(upstream.clone()));
        let transport = transport(&settings, &self.resolver).map_err(unusable(limit_key(reference)))?;
        let asks = Limits::asks(&settings.policy, self.steady.certain_since(), now.instant);
        let past = self.past(reader, limit_key(reference), asks)?;
        let id = dispatcher.declare_restored(settings.policy.clone(), &past, now);
        dispatcher.set_callbacks(id, callbacks(&settings, dispatcher.command_upstream()));
        if let Some(until) = reader.closed_until(limit_key(reference))? {
            dispatcher.restore_closing(id, self.steady.instant(until));
        }
        if is_missing {
            tracing::warn!(upstream = limit_key(reference), "calls wait for an upstream that is no longer configured");
            dispatcher.pause(id);
        }
        self.by_reference.insert(reference.clone(), id);
        self.by_id.insert(id, Known { reference: reference.clone(), settings, transport: Arc::new(transport) });
        Ok(id)
    }

    /// Makes another configuration hold: declared upstreams change, come, come back or are paused; undeclared ones follow
    /// their template.
    ///
    /// # Errors
    /// When an upstream cannot be used or the store not be read. Then nothing has changed.
    pub(crate) fn reload(
        &mut self,
        config: Arc<Config>,
        dispatcher: &mut Dispatcher,
        reader: &mut dyn Reader,
        now: Now,
    ) -> Result<(), UpstreamError> {
        let undeclared = Arc::new(config.undeclared.clone());
        let mut changes = Vec::new();
        for (&id, known) in &self.by_id {
            let settings = match &known.reference {
                UpstreamRef::Declared(name) => config.upstreams.get(name).map(|upstream| Arc::new(upstream.clone())),
                UpstreamRef::Undeclared(_) => Some(Arc::clone(&undeclared)),
            };
            let change = match settings {
                Some(settings) => Some(self.change(id, known, settings, dispatcher, reader, now)?),
                None => None,
            };
            changes.push((id, change));
        }
        let is_new = |name: &&String| !self.by_reference.contains_key(&UpstreamRef::Declared((*name).clone()));
        let new: Vec<String> = config.upstreams.keys().filter(is_new).cloned().collect();
        for name in &new {
            transport(&config.upstreams[name], &self.resolver).map_err(unusable(name))?;
        }
        (self.config, self.undeclared) = (config, undeclared);
        for (id, change) in changes {
            self.apply(id, change, dispatcher, now);
        }
        for name in new {
            self.resolve(&UpstreamRef::Declared(name), dispatcher, reader, now)?;
        }
        Ok(())
    }

    /// What it takes to change an upstream, as far as it can fail.
    fn change(
        &self,
        id: UpstreamId,
        known: &Known,
        settings: Arc<Upstream>,
        dispatcher: &Dispatcher,
        reader: &mut dyn Reader,
        now: Now,
    ) -> Result<Change, UpstreamError> {
        let key = limit_key(&known.reference);
        let way = |settings: &Upstream| (settings.connect_timeout, settings.tls_ca.clone(), settings.max_headers);
        let transport = if way(&known.settings) == way(&settings) {
            Arc::clone(&known.transport)
        } else {
            Arc::new(transport(&settings, &self.resolver).map_err(unusable(key))?)
        };
        let asks = dispatcher.asks_of_change(id, &settings.policy, self.steady.certain_since(), now);
        let past = self.past(reader, key, asks)?;
        Ok(Change { settings, transport, past })
    }

    fn apply(&mut self, id: UpstreamId, change: Option<Change>, dispatcher: &mut Dispatcher, now: Now) {
        let Some(known) = self.by_id.get_mut(&id) else { return };
        let Some(Change { settings, transport, past }) = change else {
            tracing::warn!(
                upstream = limit_key(&known.reference),
                "calls wait for an upstream that is no longer configured"
            );
            return dispatcher.pause(id);
        };
        dispatcher.change(now, id, settings.policy.clone(), past);
        dispatcher.set_callbacks(id, callbacks(&settings, dispatcher.command_upstream()));
        dispatcher.resume(id);
        (known.settings, known.transport) = (settings, transport);
    }

    /// What was sent before, by the store's account, as the windows of an upstream ask for it.
    fn past(&self, reader: &mut dyn Reader, limit_key: &str, asks: Vec<Ask>) -> Result<Past, ReadError> {
        let steady = self.steady;
        let answer = |ask| -> Result<_, ReadError> {
            let Some(question) = question(steady, ask) else { return Ok((ask, Vec::new())) };
            let grants = reader.grants(limit_key, question)?;
            let past = grants.into_iter().map(|grant| PastGrant {
                cost: grant.cost,
                proved_at: grant.latest_at.map(|at| steady.instant(at)),
                open: grant.open,
            });
            Ok((ask, past.collect()))
        };
        let windows = asks.into_iter().map(answer).collect::<Result<_, _>>()?;
        Ok(Past { certain_since: steady.certain_since(), windows })
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

/// Which ends of an upstream's calls start a callback, and where that goes.
fn callbacks(settings: &Upstream, commands: UpstreamId) -> CallbackPolicy {
    CallbackPolicy {
        on_success: settings.callback_success.as_ref().map(|_| commands),
        on_fail: settings.callback_fail.as_ref().map(|_| commands),
    }
}

/// What the limits of an upstream are counted by.
pub(crate) fn limit_key(reference: &UpstreamRef) -> &str {
    match reference {
        UpstreamRef::Declared(name) => name,
        UpstreamRef::Undeclared(origin) => origin,
    }
}

fn unusable(name: &str) -> impl FnOnce(TransportError) -> UpstreamError {
    let name = name.to_owned();
    |source| UpstreamError::Transport { name, source }
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

/// A window's question in the store's time; nothing when it asks nothing.
fn question(steady: SteadyClock, ask: Ask) -> Option<GrantsAsk> {
    match ask {
        Ask::Nothing => None,
        Ask::Latest { since, count } => Some(GrantsAsk::Latest { since: steady.steady(since), count }),
        Ask::Sums { since, step } => {
            let step_us = i64::try_from(step.as_micros()).unwrap_or(i64::MAX);
            let step_us = NonZeroI64::new(step_us).expect("a step is a microsecond at least");
            Some(GrantsAsk::Sums { since: steady.steady(since), step_us })
        }
    }
}
