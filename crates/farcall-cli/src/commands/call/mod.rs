//! `farcall call [METHOD] URL | UPSTREAM/PATH`: one call now, its answer's body on stdout.
//!
//! It is made here, in process and kept nowhere, or by a server when one is named: `here` and `there`. What was typed
//! becomes the same call document either way (`document`).

mod document;
mod here;
mod there;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use tracing::Level;

use crate::args::call::CallArgs;
use crate::client::Target;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::print::Output;

/// A call that has ended.
#[derive(Debug)]
struct Ended {
    state: String,
    error: Option<Problem>,
    answer: Option<Answer>,
    /// All of it, as a JSON document.
    outcome: Bytes,
}

/// What went wrong.
#[derive(Debug, serde::Deserialize)]
struct Problem {
    kind: String,
    message: String,
}

/// What the other side answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    body: Bytes,
}

pub(crate) fn run(context: &Context, args: &CallArgs) -> Result<Exit, Failure> {
    context.start_logging(Level::ERROR, None)?;
    let document = document::of(args)?;
    // Before anything is sent that could not be kept.
    let out = args.out.as_deref().map(open).transpose()?;
    let ended = match Target::serving(context, &args.server())? {
        Some(target) => {
            context.refuse_settings("a call that a server makes")?;
            there::call(context, target, document)
        }
        None => here::call(context, args, document),
    };
    match ended.map_err(|failure| document::with_hint(args, failure))? {
        Some(ended) => ended.show(context, args, out),
        None => Ok(Exit::Interrupted),
    }
}

impl Ended {
    fn show(&self, context: &Context, args: &CallArgs, out: Option<File>) -> Result<Exit, Failure> {
        let is_quiet = context.global.quiet;
        if let (Some(answer), true) = (&self.answer, args.include) {
            context.screen.tell(format_args!("HTTP {}", answer.status));
            for (name, value) in &answer.headers {
                context.screen.tell(format_args!("{name}: {}", value.escape_debug()));
            }
            context.screen.tell("");
        }
        let body = self.answer.as_ref().map(|answer| &answer.body);
        match (context.global.output, out) {
            (Some(Output::Json | Output::Ndjson), None) => print(context, &self.outcome)?,
            (Some(Output::Json | Output::Ndjson), Some(out)) => write(out, &self.outcome)?,
            (Some(Output::Table) | None, Some(out)) => write(out, body.unwrap_or(&Bytes::new()))?,
            (Some(Output::Table) | None, None) => print(context, body.unwrap_or(&Bytes::new()))?,
        }
        if let (Some(Problem { kind, message }), false) = (&self.error, is_quiet) {
            context.screen.tell(format_args!("{}: {} ({kind})", self.state, message.escape_debug()));
        }
        Ok(self.exit())
    }

    fn exit(&self) -> Exit {
        let kind = self.error.as_ref().map_or("", |error| error.kind.as_str());
        match (self.state.as_str(), kind) {
            ("succeeded", _) => Exit::Ok,
            ("expired", _) | (_, "timeout" | "deadline") => Exit::TimedOut,
            (_, "connect" | "dns") => Exit::Unreachable,
            _ => Exit::CallFailed,
        }
    }
}

/// What is in it stays until there is something else.
fn open(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let opened = opened.with_context(|| format!("cannot write to {}", path.display()));
    opened.map_err(|error| Failure::new(Exit::Usage, error))
}

fn write(mut out: File, text: &[u8]) -> Result<(), Failure> {
    let is_file = out.metadata().is_ok_and(|metadata| metadata.is_file());
    let emptied = if is_file { out.set_len(0) } else { Ok(()) };
    let written = emptied.and_then(|()| out.write_all(text)).context("the answer cannot be written");
    written.map_err(|error| Failure::new(Exit::Usage, error))
}

fn print(context: &Context, text: &[u8]) -> Result<(), Failure> {
    let printed = context.screen.bytes(text).context("the answer cannot be written");
    printed.map_err(|error| Failure::new(Exit::Usage, error))
}

fn not_understood(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, anyhow!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_its_exit_code() {
        let check = |state: &str, kind: Option<&str>, expected: Exit| {
            let error = kind.map(|kind| Problem { kind: kind.to_owned(), message: String::new() });
            let ended = Ended { state: state.to_owned(), error, answer: None, outcome: Bytes::new() };
            assert_eq!(ended.exit(), expected, "{state} {kind:?}");
        };
        check("succeeded", None, Exit::Ok);
        check("failed", Some("http_status"), Exit::CallFailed);
        check("failed", Some("tls"), Exit::CallFailed);
        check("unknown", Some("reset"), Exit::CallFailed);
        check("cancelled", None, Exit::CallFailed);
        check("failed", Some("timeout"), Exit::TimedOut);
        check("unknown", Some("timeout"), Exit::TimedOut);
        check("expired", Some("deadline"), Exit::TimedOut);
        check("failed", Some("connect"), Exit::Unreachable);
        check("failed", Some("dns"), Exit::Unreachable);
    }
}
