//! The policy of a batch: what `--upstream`, `--rate` and `--concurrency` make of the configuration.
//!
//! Rates come beside those that are configured, so that a batch is never faster than its directory allows.

use farcall_engine::batch::Line;
use farcall_engine::config::{Config, DeclareError, Upstream, base_url};
use serde::Deserialize;
use url::Url;

use crate::args::batch::BatchArgs;
use crate::exit::Failure;

/// Where the first line goes that has a URL: the origin of an upstream that is named and not declared.
#[derive(Debug)]
pub(super) struct FirstOrigin {
    is_wanted: bool,
    found: Option<Url>,
}

/// As much of a call as tells where it goes.
#[derive(Debug, Deserialize)]
struct Whereto {
    url: Option<String>,
    base_url: Option<String>,
}

impl FirstOrigin {
    pub(super) fn new(args: &BatchArgs) -> Self {
        Self { is_wanted: args.upstream.as_ref().is_some_and(|upstream| !upstream.contains('=')), found: None }
    }

    pub(super) fn look(&mut self, line: &Line) {
        if !self.is_wanted || self.found.is_some() {
            return;
        }
        let Some(text) = &line.text else { return };
        let Ok(Whereto { url, base_url }) = serde_json::from_slice(text) else { return };
        let url = url.or(base_url).and_then(|url| Url::parse(&url).ok());
        self.found = url.and_then(|url| Url::parse(&url.origin().ascii_serialization()).ok());
    }
}

/// Puts the batch's policy into the configuration; gives the upstream of lines that name none.
///
/// # Errors
/// With exit code 2 when the upstream cannot be declared.
pub(super) fn apply(args: &BatchArgs, config: &mut Config, first: FirstOrigin) -> Result<Option<String>, Failure> {
    // Results are in the store until they are written.
    (config.retention.succeeded, config.retention.failed) = (None, None);
    let name = match args.upstream.as_deref().map(|upstream| (upstream, upstream.split_once('='))) {
        None => None,
        Some((_, Some((name, url)))) => {
            let url = base_url::parse(url).map_err(|error| {
                let hint = error.hint.clone().unwrap_or_else(|| "write --upstream NAME=https://api.example.com".into());
                Failure::usage(format!("--upstream {name}: {error}")).with_hint(hint)
            })?;
            declare(config, name, url)?;
            Some(name)
        }
        Some((name, None)) => {
            if !config.upstreams.contains(name) {
                let Some(origin) = first.found else {
                    let failure = Failure::usage(format!("upstream `{name}` is not configured, and no line has a URL"));
                    return Err(failure.with_hint(format!("write --upstream {name}=https://api.example.com")));
                };
                declare(config, name, origin)?;
            }
            Some(name)
        }
    };
    let limit = |upstream: &mut Upstream| limit(args, upstream);
    match name {
        Some(name) => config.upstreams.change(name, limit),
        None => {
            config.upstreams.change_all(limit);
            limit(&mut config.undeclared);
        }
    }
    Ok(name.map(str::to_owned))
}

fn declare(config: &mut Config, name: &str, base_url: Url) -> Result<(), Failure> {
    config.declare(name, base_url).map_err(|error| {
        let failure = Failure::usage(format!("--upstream {name}: {error}"));
        match error {
            DeclareError::Taken { first } => {
                failure.with_hint(format!("use it as it is configured: --upstream {first}"))
            }
            DeclareError::Name(_) => failure.with_hint("use letters, digits, dots, hyphens and underscores"),
        }
    })
}

fn limit(args: &BatchArgs, upstream: &mut Upstream) {
    let limits = &mut upstream.policy.limits;
    limits.extend(args.rates.iter().copied());
    limits.sort_by_key(|limit| (limit.window, limit.count));
    limits.dedup_by_key(|limit| limit.window);
    if args.concurrency.is_some() {
        upstream.policy.concurrency = args.concurrency;
    }
}
