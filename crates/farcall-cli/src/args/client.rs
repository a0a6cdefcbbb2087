//! The client commands: what is typed to look at calls and to steer them, on whichever server.
//!
//! Every example in a help text is run by a test (`tests/it/client/examples.rs`): `ID` stands for a call there.

use std::fmt;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use farcall_engine::quantity::duration;
use serde_json::Value;

/// Which server a command talks to.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// Talk to the server of this directory, through its socket [default: ~/.farcall]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["server", "token"])]
    pub(crate) dir: Option<PathBuf>,
    /// Talk to the server at this URL [env: FARCALL_SERVER]
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The token it asks for; others see flags, prefer the variable [env: FARCALL_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<Token>,
}

/// A server's token, which is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  farcall get ID                        the call, with its outcome once it has ended
  farcall get ID --attempts             every request that was made for it
  farcall get ID --response > answer    the answer's body as it came
  farcall get ID --output json --dir ~/.farcall

Exit status: 0 found, however it ended; 3 no such call; 6 no server.")]
pub(crate) struct GetArgs {
    /// The call's id, with or without `call_`
    pub(crate) id: String,
    /// Show the attempts that were made for it instead
    #[arg(long, conflicts_with = "response")]
    pub(crate) attempts: bool,
    /// Print the body of its answer instead, byte for byte
    #[arg(long)]
    pub(crate) response: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  farcall list                                      the 50 newest calls
  farcall list --state failed --since 1h            what failed in the last hour
  farcall list --upstream etsy --limit 1000
  farcall list --tag nightly --all --output ndjson > calls.ndjson
  farcall list --state succeeded --all -q | xargs -r farcall wait

Exit status: 0 also when there are none; 6 no server.")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// How many calls at most, newest first
    #[arg(long, value_name = "N", default_value = "50", value_parser = at_least_one::<NonZeroU64>)]
    pub(crate) limit: NonZeroU64,
    /// Every call that fits
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    /// Go on where an earlier list ended
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Which calls; all that are given must fit.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Filters {
    /// In one of these states, with commas between or several times: scheduled queued running retrying succeeded failed cancelled expired unknown poisoned
    #[arg(long)]
    pub(crate) state: Vec<String>,
    /// For this upstream
    #[arg(long, value_name = "NAME")]
    pub(crate) upstream: Option<String>,
    /// Of this function
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<String>,
    /// That came in this way: inbox api bulk batch callback proxy route library
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// With this tag
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Accepted at or after this time, RFC 3339 or so long ago as `1h30m`
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Accepted before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
}

/// A point in time as it is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Moment {
    /// This long before now.
    Ago(Duration),
    /// As the server reads it.
    Text(String),
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  farcall wait ID                       until it has ended, however long that takes
  farcall wait ID --timeout 30s         at most so long, then exit status 5
  farcall wait ID -q && echo delivered

Calls are printed as they end. Exit status: 0 all succeeded or were cancelled, 1 one ended otherwise, \
3 no such call, 5 timed out, 6 no server.")]
pub(crate) struct WaitArgs {
    /// Ids of calls, with or without `call_`
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// How long to wait at most, as `30s` or `1m30s`
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// What `cancel` says below its flags.
pub(crate) const CANCEL_HELP: &str = "\
Examples:
  farcall cancel ID
  farcall cancel --state queued,scheduled --upstream etsy     the server does it to all that fit
  farcall cancel --tag nightly --dry-run                      how many that would be

A call of which bytes may be out says `cancel_requested`, and ends as it really ends; `farcall wait` tells how.

Exit status: 0 cancelled or asked for, 3 no such call, 4 it had ended already, 6 no server. With several calls it is \
that of the first one refused; the others are cancelled. With filters: 1 when one could not be.";

/// What `retry` says below its flags.
pub(crate) const RETRY_HELP: &str = "\
Examples:
  farcall retry ID                      a new call like it, which says `retry_of`
  farcall retry ID -q | xargs -r farcall wait
  farcall retry --state failed --since 1h                   the server does it to all that fit
  farcall retry --upstream etsy --dry-run                   how many that would be

Exit status: 0 made anew, 3 no such call, 4 it has not ended, 6 no server. With several calls it is that of the \
first one refused; the others are made anew. With filters: 1 when one could not be.";

/// Calls that something is done to: named, or found by filters.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CallsArgs {
    /// Ids of calls, with or without `call_`
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// With filters: only count what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  farcall explain ID                    which gate holds it, until when, its place, an estimate
  farcall explain ID --output json

Exit status: 0 explained, 3 no such call, 6 no server.")]
pub(crate) struct ExplainArgs {
    /// The call's id, with or without `call_`
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

#[derive(Debug, Clone, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  farcall upstreams                              all of them
  farcall upstreams show etsy                    its policy, and how much of every limit is used
  farcall upstreams pause etsy                   start nothing there any more
  farcall upstreams resume etsy                  go on, also when it asked to wait
  farcall upstreams set etsy rate_second=5       from now on, counting what was sent already"
)]
pub(crate) struct UpstreamsArgs {
    #[command(subcommand)]
    pub(crate) action: Option<UpstreamAction>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// What is done with upstreams.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum UpstreamAction {
    /// List them all
    #[command(after_help = "Examples:
  farcall upstreams list
  farcall upstreams list --output json")]
    List {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show policies and how much of every limit is used
    #[command(after_help = "Examples:
  farcall upstreams show etsy
  farcall upstreams show etsy --output json --dir ~/.farcall")]
    Show(UpstreamNames),
    /// Start nothing there until it is resumed, also over restarts
    #[command(after_help = "Examples:
  farcall upstreams pause etsy
  farcall upstreams pause etsy -q")]
    Pause(UpstreamNames),
    /// Go on, also when it asked to wait
    #[command(after_help = "Examples:
  farcall upstreams resume etsy
  farcall upstreams resume etsy -q")]
    Resume(UpstreamNames),
    /// Change its policy while farcall runs
    #[command(after_help = "Examples:
  farcall upstreams set etsy rate_second=5 concurrency=4
  farcall upstreams set etsy timeout=10s smooth=true
  farcall upstreams set etsy 'limits=[\"5/1s\", \"200/1h\"]'
  farcall upstreams set etsy 'retry={\"max\": 2, \"base\": \"500ms\"}'

Keys are those of an upstream in farcall.yml: limits rate_* concurrency smooth strict jitter retry wait on_unknown \
hedge breaker timeout deadline success. A value is JSON, or else text; null takes a \
change back. It holds until what the file says of that key changes.")]
    Set {
        /// The upstream's name
        name: String,
        /// Keys and their new values
        #[arg(required = true, value_name = "KEY=VALUE")]
        changes: Vec<Change>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpstreamNames {
    /// Names of upstreams
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// A key of a policy, and its new value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) value: Value,
}

/// What is no change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a change is written KEY=VALUE, as rate_second=5")]
pub(crate) struct ChangeError;

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  farcall completions bash > farcall.bash      to be sourced, or put where bash-completion looks
  farcall completions zsh > _farcall           to be put in a directory of $fpath
  farcall completions fish > farcall.fish      to be put in ~/.config/fish/completions")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  farcall man > farcall.1              the page of the program; `man -l farcall.1` shows it
  farcall man list > farcall-list.1    the page of a command
  farcall man upstreams set > farcall-upstreams-set.1
  farcall man --out man1               all of them, as packages install them")]
pub(crate) struct ManArgs {
    /// The page of this command
    #[arg(conflicts_with = "out")]
    pub(crate) command: Vec<String>,
    /// Write all pages into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

impl Token {
    /// For the one header that carries it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Token {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Change {
    type Err = ChangeError;

    fn from_str(text: &str) -> Result<Self, ChangeError> {
        let (key, value) = text.split_once('=').ok_or(ChangeError)?;
        if key.is_empty() {
            return Err(ChangeError);
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        Ok(Self { key: key.to_owned(), value })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl FromStr for Moment {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(duration::from_text(text).map_or_else(|_| Self::Text(text.to_owned()), Self::Ago))
    }
}

/// A length of time, as the configuration has them; a bare number is seconds.
pub(crate) fn length(text: &str) -> Result<Duration, duration::DurationError> {
    match text.parse::<f64>() {
        Ok(seconds) => duration::from_seconds(seconds),
        Err(_) => duration::from_text(text),
    }
}

/// A number of things, of which there is to be one.
pub(crate) fn at_least_one<N: FromStr>(text: &str) -> Result<N, &'static str> {
    text.parse().map_err(|_| "it must be a whole number, 1 at least")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_is_a_length_ago_or_left_to_the_server() {
        assert_eq!("1h30m".parse(), Ok(Moment::Ago(Duration::from_secs(5_400))));
        assert_eq!("2026-11-20T09:00:00Z".parse(), Ok(Moment::Text("2026-11-20T09:00:00Z".into())));
    }

    #[test]
    fn a_timeout_is_seconds_or_has_units() {
        assert_eq!(length("2.5"), Ok(Duration::from_millis(2_500)));
        assert_eq!(length("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["-1", "soon", "inf", ""] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_value_is_json_or_else_text() {
        let check = |text: &str, key: &str, value: Value| {
            assert_eq!(text.parse(), Ok(Change { key: key.to_owned(), value }), "{text}");
        };
        check("rate_second=5", "rate_second", json!(5));
        check("timeout=10s", "timeout", json!("10s"));
        check("limits=[\"5/1s\"]", "limits", json!(["5/1s"]));
        check("on_unknown=stop", "on_unknown", json!("stop"));
        check("wait=null", "wait", Value::Null);
        check("x=a=b", "x", json!("a=b"));
        for wrong in ["rate_second", "=5", ""] {
            assert_eq!(wrong.parse::<Change>(), Err(ChangeError), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let args = ServerArgs { token: Some(Token("hush".into())), ..ServerArgs::default() };
        assert!(!format!("{args:?}").contains("hush"));
    }
}
