//! Upstreams as the engine knows them: the dispatcher's number, the configuration, the way there.
//!
//! Declared ones exist from the start; an undeclared one is made when the first call for its origin comes, and forgotten
//! when nothing needs it any more (`idle`).

mod idle;
mod reload;
mod webhooks;

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroI64;
use std::sync::Arc;

use farcall_core::call::UpstreamId;
use farcall_core::dispatcher::Dispatcher;
use farcall_core::id_map::IdMap;
use farcall_core::limit::{Ask, Limits, Past, PastGrant};
use farcall_core::steady::SteadyClock;
use farcall_core::time::{Instant, Now};
use farcall_store::port::{Granted, GrantsAsk, ReadError, Reader};
use farcall_store::record::GrantRecord;

use crate::config::{Config, Upstream};
use crate::document::UpstreamRef;
use crate::execute::http::{Resolver, Room, Transport, TransportError, TransportSettings};

pub(crate) use webhooks::command_policy;

/// Undeclared upstreams that redirects may bring in before some are forgotten: answers name any origin they like.
const REDIRECTED_TO_MAX: usize = 10_000;

/// One upstream.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) reference: Arc<UpstreamRef>,
    pub(crate) serves: Serves,
    pub(crate) settings: Arc<Upstream>,
    pub(crate) transport: Arc<Transport>,
    /// Which use of any upstream was the last of this one.
    last_use: u64,
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
    shared: Shared,
    by_id: IdMap<UpstreamId, Known>,
    by_reference: HashMap<UpstreamRef, UpstreamId>,
    /// For webhooks.
    webhooks: HashMap<UpstreamRef, UpstreamId>,
    /// Undeclared ones that were first named by redirects.
    redirected_to: usize,
    /// Limit keys of those that somebody paused, whether or not there is any yet.
    paused: BTreeSet<String>,
    /// How often any was asked for.
    uses: u64,
    /// When there are so many, idle ones are looked for at once.
    look_at: usize,
}

/// What all ways to upstreams have in common.
#[derive(Debug, Default)]
struct Shared {
    resolver: Resolver,
    room: Room,
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
    /// `paused` are the limit keys of those that somebody paused.
    pub(crate) fn new(config: Arc<Config>, steady: SteadyClock, paused: BTreeSet<String>) -> Self {
        let undeclared = Arc::new(config.undeclared.clone());
        let (by_id, by_reference, webhooks) = (IdMap::default(), HashMap::new(), HashMap::new());
        Self {
            config,
            steady,
            undeclared,
            shared: Shared::default(),
            by_id,
            by_reference,
            webhooks,
            redirected_to: 0,
            paused,
            uses: 0,
            look_at: idle::LOOK_AFTER,
        }
    }

    /// Makes every declared upstream, with its limits as an earlier process left them.
    pub(crate) fn declare_all(&mut self, making: &mut Making<'_>) -> Result<(), UpstreamError> {
        let names: Vec<String> = self.config.upstreams.names().map(str::to_owned).collect();
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
            self.note_use(id);
            return Ok(id);
        }
        let own = match reference {
            UpstreamRef::Declared(name) => self.config.upstreams.get(name),
            UpstreamRef::Undeclared(origin) => self.config.origins.get(origin),
        };
        let is_missing = self.is_missing(reference);
        let settings = Arc::clone(own.unwrap_or(&self.undeclared));
        let transport = transport(&settings, &self.shared).map_err(unusable(limit_key(reference)))?;
        let Making { dispatcher, reader, now } = making;
        let now = *now;
        let asks = Limits::asks(&settings.policy, self.steady.certain_since(), now.instant);
        let (past, closed_until) = self.past(*reader, limit_key(reference), asks)?;
        let id = dispatcher.declare_restored(settings.policy.clone(), &past, now);
        if let Some(until) = closed_until {
            dispatcher.restore_closing(id, until);
        }
        if self.paused.contains(limit_key(reference)) {
            dispatcher.restore_pause(id);
        }
        if is_missing {
            tracing::warn!(upstream = limit_key(reference), "calls wait for an upstream that is no longer configured");
            dispatcher.withdraw(id);
        }
        self.by_reference.insert(reference.clone(), id);
        let (transport, serves) = (Arc::new(transport), Serves::Calls);
        let known = Known { reference: Arc::new(reference.clone()), serves, settings, transport, last_use: 0 };
        self.by_id.insert(id, known);
        self.note_use(id);
        // Only now: a callback may go to this very upstream, or to one whose callbacks come back here.
        self.set_callbacks(id, making)?;
        Ok(id)
    }

    /// The upstream that a redirect leads to; nothing when answers have named so many undeclared ones that no more are kept
    /// account of.
    pub(crate) fn resolve_redirect(
        &mut self,
        reference: &UpstreamRef,
        making: &mut Making<'_>,
    ) -> Result<Option<UpstreamId>, UpstreamError> {
        let is_new = matches!(reference, UpstreamRef::Undeclared(_)) && !self.by_reference.contains_key(reference);
        if is_new && self.redirected_to >= REDIRECTED_TO_MAX {
            return Ok(None);
        }
        let id = self.resolve(reference, making)?;
        self.redirected_to += usize::from(is_new);
        Ok(Some(id))
    }

    /// Whether the configuration no longer has it.
    fn is_missing(&self, reference: &UpstreamRef) -> bool {
        matches!(reference, UpstreamRef::Declared(name) if !self.config.upstreams.contains(name))
    }

    /// What was sent before, by the store's account, as the windows of an upstream ask for it; and until when it asked
    /// everybody to keep away.
    fn past(
        &self,
        reader: &mut dyn Reader,
        limit_key: &str,
        asks: Vec<Ask>,
    ) -> Result<(Past, Option<Instant>), ReadError> {
        let steady = self.steady;
        let questions: Vec<GrantsAsk> = asks.iter().filter_map(|&ask| question(steady, ask)).collect();
        let Granted { grants, closed_until } = reader.grants(limit_key, &questions)?;
        let past = |grant: GrantRecord| PastGrant {
            cost: grant.cost,
            proved_at: grant.latest_at.map(|at| steady.instant(at)),
            open: grant.open,
        };
        let mut answers = grants.into_iter().map(|grants| grants.into_iter().map(past).collect());
        let answer = |ask| match ask {
            Ask::Nothing => (ask, Vec::new()),
            Ask::Latest { .. } | Ask::Sums { .. } => (ask, answers.next().unwrap_or_default()),
        };
        let windows = asks.into_iter().map(answer).collect();
        let past = Past { certain_since: steady.certain_since(), windows };
        Ok((past, closed_until.map(|until| steady.instant(until))))
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

    /// Whether somebody paused the upstream of this limit key.
    pub(crate) fn is_paused(&self, limit_key: &str) -> bool {
        self.paused.contains(limit_key)
    }

    /// Notes that somebody paused the upstream of this limit key, or resumed it.
    pub(crate) fn note_paused(&mut self, limit_key: &str, is_paused: bool) {
        if is_paused {
            self.paused.insert(limit_key.to_owned());
        } else {
            self.paused.remove(limit_key);
        }
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

/// The name of an upstream, if it is declared.
pub(crate) fn declared_name(reference: &UpstreamRef) -> Option<String> {
    match reference {
        UpstreamRef::Declared(name) => Some(name.clone()),
        UpstreamRef::Undeclared(_) => None,
    }
}

fn unusable(name: &str) -> impl FnOnce(TransportError) -> UpstreamError {
    let name = name.to_owned();
    |source| UpstreamError::Transport { name, source }
}

fn transport(settings: &Upstream, shared: &Shared) -> Result<Transport, TransportError> {
    Transport::new(&TransportSettings {
        resolver: shared.resolver.clone(),
        room: shared.room.clone(),
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
