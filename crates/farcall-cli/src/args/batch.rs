//! `farcall batch`: what is typed.
//!
//! Every example in the help text is run by a test (`tests/it/batch/examples.rs`).

use std::num::NonZeroU32;
use std::path::PathBuf;

use farcall_core::policy::LimitSpec;
use farcall_engine::config::parse_limit;

use super::client::{ServerArgs, Token, at_least_one};

pub(crate) const BATCH_HELP: &str = "\
Examples:
  farcall batch calls.ndjson --out results.ndjson
  farcall batch calls.ndjson --out results.ndjson --rate 10/1s --rate 400/1h --concurrency 4
  farcall batch paths.ndjson --out results.ndjson --upstream shop=http://localhost:8080/api
  cat calls.ndjson | farcall batch - --as-completed > results.ndjson
  farcall batch calls.ndjson --out results.ndjson --dir ~/.farcall

A line is a call, as in a call file:
  {\"url\": \"https://api.example.com/orders\", \"body\": {\"order_id\": 123}}
Its result is what a response file holds, and `line`. A line that is no valid call has `state: rejected`.

Killed or interrupted, the same command goes on: every line is called once, no result is missing or doubled. What that \
takes lies beside the output in results.ndjson.farcall (without --out beside the input, with --dir in DIR/.farcall).

When a server runs in --dir, or --server names one, the calls are made there, within its limits, and go on there when \
this command ends before.

Exit status: 0 all succeeded, 1 some failed or were rejected, 2 usage, 4 the input or the output is not that of the batch \
that was begun (--restart begins anew), 6 the server cannot be reached, 7 the directory is in use or the output cannot \
be written, 130 interrupted.";

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BatchArgs {
    /// The calls, one JSON object per line; `-` for standard input
    pub(crate) file: PathBuf,
    /// Write results to this file [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write each result when its call has ended, not in the order of the input
    #[arg(long)]
    pub(crate) as_completed: bool,
    /// Where lines without URL go: an upstream of the configuration, or NAME=BASE_URL. A new NAME alone is the origin of
    /// the first line's URL
    #[arg(long, value_name = "NAME")]
    pub(crate) upstream: Option<String>,
    /// At most N calls in any window, as `10/1s`; may be given several times. Of --upstream, else of every upstream
    #[arg(long = "rate", value_name = "N/WINDOW", value_parser = rate)]
    pub(crate) rates: Vec<LimitSpec>,
    /// At most N attempts at the same time. Of --upstream, else of every upstream
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroU32>)]
    pub(crate) concurrency: Option<NonZeroU32>,
    /// Forget what was done, empty the output, and begin anew
    #[arg(long)]
    pub(crate) restart: bool,
    /// Work with this directory's configuration and in its store, through the server that runs in it if there is one
    #[arg(long, value_name = "DIR", conflicts_with_all = ["server", "token"], help_heading = "Server")]
    pub(crate) dir: Option<PathBuf>,
    /// Let the server at this URL make the calls [env: FARCALL_SERVER]
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub(crate) server: Option<String>,
    /// The token it asks for; others see flags, prefer the variable [env: FARCALL_TOKEN]
    #[arg(long, value_name = "TOKEN", help_heading = "Server")]
    pub(crate) token: Option<Token>,
}

impl BatchArgs {
    /// Which server is meant, if any.
    pub(crate) fn server(&self) -> ServerArgs {
        ServerArgs { dir: self.dir.clone(), server: self.server.clone(), token: self.token.clone() }
    }
}

fn rate(text: &str) -> Result<LimitSpec, String> {
    parse_limit(text).map_err(|error| format!("{error}; {}", error.hint))
}
