//! Another configuration for upstreams that are at work.
//!
//! Declared ones change, come, come back or are paused; undeclared ones follow their template, webhooks the upstream
//! that they go to. What can fail comes first.

use std::sync::Arc;

use farcall_core::call::UpstreamId;
use farcall_core::limit::Past;
use farcall_core::policy::CallbackPolicy;

use super::webhooks::webhook_settings;
use super::{Known, Making, Serves, UpstreamError, Upstreams, limit_key, transport, unusable};
use crate::config::{Config, Upstream};
use crate::document::UpstreamRef;
use crate::execute::http::Transport;

/// What an upstream is about to become.
struct Change {
    id: UpstreamId,
    settings: Arc<Upstream>,
    transport: Arc<Transport>,
    past: Past,
}

impl Upstreams {
    /// Makes another configuration hold.
    ///
    /// # Errors
    /// When an upstream cannot be used or the store not be read. Then nothing has changed, unless the store fails while
    /// a new upstream is made.
    pub(crate) fn reload(&mut self, config: Arc<Config>, making: &mut Making<'_>) -> Result<(), UpstreamError> {
        let undeclared = Arc::new(config.undeclared.clone());
        let settings_of = |reference: &UpstreamRef| match reference {
            UpstreamRef::Declared(name) => config.upstreams.get(name).cloned(),
            UpstreamRef::Undeclared(origin) => Some(Arc::clone(config.origins.get(origin).unwrap_or(&undeclared))),
        };
        let (mut changes, mut gone) = (Vec::new(), Vec::new());
        for (id, known) in self.iter() {
            match settings_of(&known.reference) {
                None => gone.push(id),
                Some(settings) if known.serves == Serves::Calls => {
                    changes.push(self.change(id, known, settings, making)?);
                }
                Some(_) => {}
            }
        }
        let is_new = |name: &String| !self.by_reference.contains_key(&UpstreamRef::Declared(name.clone()));
        let new: Vec<String> = config.upstreams.names().map(str::to_owned).filter(is_new).collect();
        for name in &new {
            transport(&config.upstreams[name], &self.shared).map_err(unusable(name))?;
        }
        (self.config, self.undeclared) = (config, undeclared);
        gone.into_iter().for_each(|id| self.part_with(id, making));
        let changed: Vec<UpstreamId> = changes.iter().map(|change| change.id).collect();
        changes.into_iter().for_each(|change| self.apply(change, making));
        for name in new {
            self.resolve(&UpstreamRef::Declared(name), making)?;
        }
        for id in changed {
            self.set_callbacks(id, making)?;
        }
        Ok(())
    }

    /// Where the ends of an upstream's calls lead.
    pub(super) fn set_callbacks(&mut self, id: UpstreamId, making: &mut Making<'_>) -> Result<(), UpstreamError> {
        let settings = Arc::clone(&self.by_id[&id].settings);
        let callbacks = CallbackPolicy {
            on_success: self.target(settings.callback_success.as_ref(), making)?,
            on_fail: self.target(settings.callback_fail.as_ref(), making)?,
        };
        making.dispatcher.set_callbacks(id, callbacks);
        Ok(())
    }

    /// What it takes to change an upstream.
    fn change(
        &self,
        id: UpstreamId,
        known: &Known,
        settings: Arc<Upstream>,
        making: &mut Making<'_>,
    ) -> Result<Change, UpstreamError> {
        let key = limit_key(&known.reference);
        let way = |settings: &Upstream| (settings.connect_timeout, settings.tls_ca.clone(), settings.max_headers);
        let transport = if way(&known.settings) == way(&settings) {
            Arc::clone(&known.transport)
        } else {
            Arc::new(transport(&settings, &self.shared).map_err(unusable(key))?)
        };
        let certain_since = self.steady.certain_since();
        let asks = making.dispatcher.asks_of_change(id, &settings.policy, certain_since, making.now);
        let (past, _) = self.past(making.reader, key, asks)?;
        Ok(Change { id, settings, transport, past })
    }

    fn apply(&mut self, change: Change, making: &mut Making<'_>) {
        let Change { id, settings, transport, past } = change;
        let known = self.by_id.get_mut(&id).expect("it was found here");
        making.dispatcher.change(making.now, id, settings.policy.clone(), past);
        making.dispatcher.reinstate(id);
        known.settings = Arc::clone(&settings);
        known.transport = Arc::clone(&transport);
        let Some(&webhooks) = self.webhooks.get(&known.reference) else { return };
        let known = self.by_id.get_mut(&webhooks).expect("webhooks are upstreams too");
        known.settings = Arc::new(webhook_settings(&settings));
        known.transport = transport;
        making.dispatcher.change_own(webhooks, known.settings.policy.clone());
        making.dispatcher.reinstate(webhooks);
    }

    /// Its calls wait until it is declared again.
    fn part_with(&self, id: UpstreamId, making: &mut Making<'_>) {
        let known = &self.by_id[&id];
        if known.serves == Serves::Calls {
            let upstream = limit_key(&known.reference);
            tracing::warn!(upstream, "calls wait for an upstream that is no longer configured");
        }
        making.dispatcher.withdraw(id);
    }
}
