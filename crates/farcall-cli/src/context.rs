//! What every command is given: the flags that all have, the environment, the screen, and what follows from them.
//!
//! Here flags meet the environment; what they mean is the configuration's business.

use std::path::{Path, PathBuf};

use farcall_engine::config::{self, Calls, Diagnostics, Finding, LoadError, LoadOptions, Loaded};
use indicatif::MultiProgress;
use tracing::Level;

use crate::args::{Dir, Global};
use crate::directory;
use crate::exit::Failure;
use crate::logging::Logging;
use crate::print::{Output, Screen};
use crate::settings::Environment;

/// The surroundings of a command.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) environment: Environment,
    pub(crate) screen: Screen,
    /// The program runs as `kofaf`.
    pub(crate) is_kofaf: bool,
}

impl Context {
    /// The directory that was named, or the default one.
    ///
    /// # Errors
    /// When none was named and there is no home directory.
    pub(crate) fn directory(&self, dir: &Dir) -> Result<PathBuf, Failure> {
        let default = if self.is_kofaf { ".kofaf" } else { ".farcall" };
        directory::named(dir.dir.as_deref(), self.environment.home.as_deref(), default)
    }

    /// The directory's configuration, with what flags and environment set.
    ///
    /// # Errors
    /// When it has mistakes or cannot be read.
    pub(crate) fn load(&self, dir: &Path) -> Result<Loaded, Failure> {
        Ok(self.read(dir)?)
    }

    /// The same, for whoever goes on without it.
    ///
    /// # Errors
    /// When it has mistakes or cannot be read.
    pub(crate) fn read(&self, dir: &Path) -> Result<Loaded, LoadError> {
        self.read_with(dir, Calls::Durable)
    }

    /// The same for a call that is kept nowhere.
    ///
    /// # Errors
    /// When it has mistakes or cannot be read.
    pub(crate) fn load_for_one_call(&self, dir: &Path) -> Result<Loaded, Failure> {
        Ok(self.read_with(dir, Calls::Ephemeral)?)
    }

    fn read_with(&self, dir: &Path, calls: Calls) -> Result<Loaded, LoadError> {
        let environment = self.environment.given.iter();
        let options = LoadOptions {
            path: self.global.config.clone(),
            overrides: environment.chain(&self.global.settings.given).cloned().collect(),
            kofaf: self.is_kofaf,
            calls,
        };
        config::load(dir, &options)
    }

    /// For commands that neither read a configuration nor start anything: what they cannot heed they refuse.
    ///
    /// # Errors
    /// When a setting or a configuration file was given on the command line.
    pub(crate) fn refuse_settings(&self, command: &str) -> Result<(), Failure> {
        let config = self.global.config.is_some().then_some("--config");
        let setting = self.global.settings.given.first().map(|setting| setting.origin.as_str());
        match config.or(setting) {
            Some(flag) => {
                Err(Failure::usage(format!("{flag} is for those who start a server; {command} has no use for it")))
            }
            None => Ok(()),
        }
    }

    /// The form of results.
    pub(crate) fn output(&self) -> Output {
        self.screen.output(self.global.output)
    }

    /// Starts logging from this level on; a quiet command logs warnings.
    ///
    /// # Errors
    /// When `FARCALL_LOG` is no filter.
    pub(crate) fn start_logging(&self, level: Level, bars: Option<MultiProgress>) -> Result<(), Failure> {
        self.start_logging_but(None, level, bars)
    }

    /// The same, but for what a part of the program says below an error.
    ///
    /// # Errors
    /// When `FARCALL_LOG` is no filter.
    pub(crate) fn start_logging_but(
        &self,
        hushed: Option<&'static str>,
        level: Level,
        bars: Option<MultiProgress>,
    ) -> Result<(), Failure> {
        let logging = Logging {
            format: self.global.log_format,
            has_color: self.screen.stderr_has_color(),
            filter: self.environment.log.clone(),
            hushed,
            level: if self.global.quiet { level.min(Level::WARN) } else { level },
            bars,
        };
        logging.start()?;
        for name in &self.environment.unknown {
            tracing::warn!(variable = %name, "no setting has this name, it is not read");
        }
        Ok(())
    }
}

/// Logs what the configuration allows but probably does not mean.
pub(crate) fn log_warnings(warnings: &Diagnostics) {
    for Finding { path, line, column, message, hint, .. } in warnings.iter() {
        tracing::warn!(path, line, column, hint, finding = message, "the configuration may not mean this");
    }
}
