//! The configuration that holds now, shared by everybody who asks.
//!
//! A reload puts another in its place, whole; whoever works with one keeps it until the next look.

use std::sync::{Arc, PoisonError, RwLock};

use super::model::Config;

/// What holds now.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<RwLock<Arc<Config>>>);

impl Live {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Self(Arc::new(RwLock::new(config)))
    }

    /// The configuration as it is now.
    pub fn now(&self) -> Arc<Config> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, config: Arc<Config>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

/// The keys in which two configurations differ that only a start reads.
pub fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let differences = [
        ("server.listen", after.server.listen != before.server.listen),
        ("store.path", after.store.path != before.store.path),
    ];
    differences.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}
