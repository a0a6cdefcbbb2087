//! Putting another configuration in the place of the one that holds.
//!
//! All of it or nothing: what can be refused is looked at first. Attempts that are out go on as they were launched;
//! calls that wait are read again under the new configuration when they start.

use std::sync::Arc;

use super::attempts::Surroundings;
use super::{Run, prune};
use crate::clock;
use crate::config::Config;
use crate::upstreams::{Making, UpstreamError};

impl Run {
    /// # Errors
    /// When an upstream cannot be used or the store not be read: then nothing has changed.
    pub(super) fn reload(&mut self, config: Arc<Config>) -> Result<(), UpstreamError> {
        let (dispatcher, reader, now) = (&mut self.dispatcher, self.reader.as_mut(), clock::now());
        self.upstreams.reload(Arc::clone(&config), &mut Making { dispatcher, reader, now })?;
        self.documents.clear();
        self.dispatcher.set_retention(now.instant, prune::retention(&config, &self.steady));
        self.config = Arc::clone(&config);
        self.around = Arc::new(Surroundings { config: Arc::clone(&config), ..Surroundings::clone(&self.around) });
        self.live.replace(config);
        self.keeper.wake();
        Ok(())
    }
}
