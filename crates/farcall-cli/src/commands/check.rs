//! `farcall check [DIR]`: tells every mistake of the configuration with its place, and what a good one says.
//!
//! People read the findings on stderr, the text underlined; machines get them on stdout when they ask.

use std::path::Path;

use farcall_engine::config::{Config, Diagnostics, Finding, Listen, Severity};
use serde_json::{Value, json};

use crate::args::Dir;
use crate::context::Context;
use crate::directory;
use crate::exit::{Exit, Failure};
use crate::print::{Output, Records, Screen, counted};

pub(crate) fn run(context: &Context, dir: &Dir) -> Result<Exit, Failure> {
    let dir = directory::existing(&context.directory(dir)?)?;
    let loaded = match context.load(&dir) {
        Ok(loaded) => loaded,
        Err(Failure::Configuration(mistakes)) => {
            show(context, &mistakes);
            if asked_records(context).is_none() {
                let count = counted(u64::try_from(mistakes.len()).unwrap_or(u64::MAX), "mistake");
                context.screen.tell(format_args!("\n{count}"));
            }
            return Ok(Exit::Usage);
        }
        Err(failure) => return Err(failure),
    };
    show(context, &loaded.warnings);
    if asked_records(context).is_none() && !context.global.quiet {
        context.screen.result(summary(&dir, &loaded.config));
    }
    Ok(Exit::Ok)
}

/// Only when asked for: mistakes are for people first, also in the log of a build.
fn asked_records(context: &Context) -> Option<Records> {
    match context.global.output? {
        Output::Table => None,
        Output::Json => Some(Records::Document),
        Output::Ndjson => Some(Records::Lines),
    }
}

fn show(context: &Context, findings: &Diagnostics) {
    let screen: &Screen = &context.screen;
    match asked_records(context) {
        Some(form) => screen.records(&findings.iter().map(record).collect::<Vec<_>>(), form),
        None if findings.is_empty() => {}
        None => screen.tell(findings.render(screen.stderr_has_color())),
    }
}

fn record(finding: Finding<'_>) -> Value {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    json!({
        "severity": severity,
        "path": finding.path,
        "line": finding.line,
        "column": finding.column,
        "message": finding.message,
        "hint": finding.hint,
    })
}

/// `farcall.yml: ok, 2 upstreams (etsy, shop), API at 127.0.0.1:8888, calls in .farcall`
fn summary(dir: &Path, config: &Config) -> String {
    let name = match &config.path {
        Some(path) => path.strip_prefix(dir).unwrap_or(path).display().to_string(),
        None => "no configuration file".to_owned(),
    };
    let count = counted(u64::try_from(config.upstreams.len()).unwrap_or(u64::MAX), "upstream");
    let upstreams = match config.upstreams.len() {
        0 => count,
        1..=8 => format!("{count} ({})", config.upstreams.names().collect::<Vec<_>>().join(", ")),
        _ => count,
    };
    let api = match &config.server.listen {
        Listen::None => "no port".to_owned(),
        Listen::Address(address) => format!("API at {address}"),
    };
    format!("{name}: ok, {upstreams}, {api}, calls in {}", config.store.path.display())
}
