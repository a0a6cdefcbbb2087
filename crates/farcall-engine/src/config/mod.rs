//! What the user configures: the typed result here, how it is read in the modules below.
//!
//! The way of a file: [`load`] finds and reads it, `tree` makes values with places of the text, `root`, `settings` and
//! `upstream` interpret them by tables of keys through `reader`, `layer` lays an upstream over the defaults, and
//! every mistake on the way is a [`Diagnostics`] entry. A new key is one line in a table.

pub mod base_url;
mod breaker;
mod callback;
mod declared;
mod diagnostic;
pub(crate) mod file;
mod headers;
mod hedge;
mod layer;
mod limits;
mod live;
mod load;
mod model;
pub(crate) mod patch;
mod patch_schema;
mod proxy;
mod reader;
mod retry;
mod root;
mod route;
mod routes;
mod settings;
mod statuses;
mod tree;
mod upstream;
mod webhook;

pub use declared::Declared;
pub use diagnostic::{Diagnostics, Finding, Severity};
pub use limits::{LimitError, parse as parse_limit};
pub use live::{Live, needs_restart};
pub use load::{CONFIG_BYTES_MAX, Calls, LoadError, LoadOptions, Loaded, load};
pub use model::{
    Addresses, CallbackAction, CommandLine, Config, DeclareError, HeaderCaps, Inbox, Listen, RetentionSettings, Server,
    StoreSettings, Success, Upstream, Webhook,
};
pub use patch::{PatchDocument, Written};
pub use patch_schema::PatchSchema;
pub use route::{FoundRoute, ROUTE_BYTES_MAX, Route, Routes, Style};
pub use routes::OWN_SEGMENTS;
pub use settings::{Override, SETTINGS};

/// The commented configuration that `farcall init` writes: every key with its unit and default. Valid as it is.
pub fn init_text() -> &'static str {
    include_str!("init.yml")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The explained text with its examples in force.
    fn with_examples() -> String {
        let uncomment = |line: &str| match line.trim_start().strip_prefix('#') {
            Some(example) if !example.starts_with(' ') && !example.is_empty() => {
                let indent = line.len() - line.trim_start().len();
                format!("{}{example}\n", " ".repeat(indent))
            }
            _ => format!("{line}\n"),
        };
        init_text().lines().map(uncomment).collect()
    }

    #[test]
    fn the_explained_configuration_holds_the_defaults() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("farcall.yml"), init_text())?;
        let loaded = load(dir.path(), &LoadOptions::default())?;
        assert!(loaded.warnings.is_empty() && loaded.config.upstreams.is_empty());
        assert_eq!(loaded.config.server, Server::default());
        Ok(())
    }

    #[test]
    fn its_examples_are_valid_and_show_the_defaults() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("farcall.yml"), with_examples())?;
        let config = load(dir.path(), &LoadOptions::default())?.config;
        assert_eq!((config.server, config.store), (Server::default(), StoreSettings::default()));
        assert_eq!((config.inbox, config.retention), (Inbox::default(), RetentionSettings::default()));
        let (shown, default) = (&config.upstreams["etsy"], Upstream::default());
        let mut retry = shown.policy.retry.clone();
        let ranges = farcall_core::retry::StatusSet::retryable();
        assert!((100..600).all(|status| retry.statuses.contains(status) == ranges.contains(status)));
        retry.statuses = ranges;
        assert_eq!(retry, default.policy.retry);
        assert_eq!((shown.policy.timeout, shown.connect_timeout), (default.policy.timeout, default.connect_timeout));
        assert_eq!((shown.max_response, shown.max_headers), (default.max_response, default.max_headers));
        assert_eq!(
            (shown.policy.jitter, &shown.idempotency_header),
            (default.policy.jitter, &default.idempotency_header)
        );
        assert_eq!(shown.policy.success_statuses, default.policy.success_statuses);
        Ok(())
    }

    #[test]
    fn ages_are_lengths_of_time_or_none() -> Result<(), Box<dyn std::error::Error>> {
        let days = |days: u64| Some(std::time::Duration::from_secs(days * 86_400));
        let ages = |text: &str| -> Result<_, Box<dyn std::error::Error>> {
            let dir = tempfile::tempdir()?;
            std::fs::write(dir.path().join("farcall.yml"), text)?;
            let config = load(dir.path(), &LoadOptions::default())?.config;
            Ok((config.retention.succeeded, config.retention.failed, config.inbox.keep))
        };
        assert_eq!(ages("")?, (days(7), days(30), None));
        assert_eq!(ages("retention: { succeeded: 1d }\ninbox: { keep: 3d }")?, (days(1), days(30), days(3)));
        assert_eq!(ages("retention: { succeeded: none, failed: 2d }\ninbox: { keep: none }")?, (None, days(2), None));
        for wrong in ["0", "never", "-1", "[1d]"] {
            assert!(ages(&format!("retention: {{ failed: {wrong} }}")).is_err(), "{wrong}");
            assert!(ages(&format!("inbox: {{ keep: {wrong} }}")).is_err(), "{wrong}");
        }
        Ok(())
    }

    /// The keys of every mapping, as the hints for an unknown one list them.
    fn known_keys() -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let sections = "zzzzzzzzzzzz: 1\nserver: {zzzzzzzzzzzz: 1}\nstore: {zzzzzzzzzzzz: 1}\ninbox: {zzzzzzzzzzzz: 1}\nretention: {zzzzzzzzzzzz: 1}\n\
                        upstreams: {b: {base_url: \"http://b.test\"}}\nroutes: {/a: {upstream: b, zzzzzzzzzzzz: 1}}\n";
        let upstream = "defaults: {zzzzzzzzzzzz: 1, retry: {zzzzzzzzzzzz: 1}, tls: {zzzzzzzzzzzz: 1}, \
                        success: {zzzzzzzzzzzz: 1}, max_headers: {zzzzzzzzzzzz: 1}, breaker: {zzzzzzzzzzzz: 1}, \
                        hedge: {after: 1s, zzzzzzzzzzzz: 1}}\n";
        std::fs::write(dir.path().join("farcall.yml"), format!("{sections}{upstream}"))?;
        let Err(LoadError::Invalid(diagnostics)) = load(dir.path(), &LoadOptions::default()) else {
            return Err("unknown keys were accepted".into());
        };
        assert_eq!(diagnostics.len(), 13, "{diagnostics}");
        let lists = diagnostics.iter().filter_map(|finding| finding.hint?.strip_prefix("known here: "));
        Ok(lists.flat_map(|list| list.split(", ")).map(str::to_owned).collect())
    }

    #[test]
    fn it_explains_every_available_key() -> Result<(), Box<dyn std::error::Error>> {
        const LATER: [&str; 3] = ["budget", "functions", "url"];
        let keys = known_keys()?;
        assert!(keys.len() > 50);
        for key in keys.iter().filter(|key| !LATER.contains(&key.as_str())) {
            assert!(init_text().contains(&format!("{key}:")), "{key} is not explained");
        }
        Ok(())
    }
}
