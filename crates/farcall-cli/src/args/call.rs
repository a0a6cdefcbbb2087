//! `farcall call`: what is typed, much of it as curl has it.
//!
//! Every example in the help text is run by a test (`tests/it/call/examples.rs`).

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::client::{ServerArgs, Token, length};

pub(crate) const CALL_HELP: &str = "\
Examples:
  farcall call http://localhost:8080/orders
  farcall call POST http://localhost:8080/orders --json '{\"order_id\": 123}'
  farcall call PUT http://localhost:8080/notes/7 -H 'content-type: text/plain' -d @note.txt -i
  farcall call http://localhost:8080/search -Q 'text=blue shoes' -Q page=2 --timeout 10s --retry 3
  farcall call shop/orders/7 --dir calls -o order.json

Without a server the call is made here and now, with the limits, headers, secrets and retries that DIR/farcall.yml \
gives the upstream; without --dir that is ~/.farcall. It is tried once unless --retry or the file says otherwise. When a \
server runs in --dir, or --server names one, the call is made there, as durable as any, and waited for.

The answer's body goes to stdout as it came, everything else to stderr.

Exit status: 0 succeeded, 1 failed, 2 usage or configuration, 5 timed out, 6 the other side, or the server, cannot be \
reached, 130 interrupted.";

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CallArgs {
    /// The method [default: POST with a body, else GET], then a URL, or the name of a configured upstream and a path
    #[arg(value_names = ["METHOD", "URL|UPSTREAM/PATH"], num_args = 1..=2, required = true)]
    pub(crate) target: Vec<String>,
    /// A header, as `Name: value`; may be given several times
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<String>,
    /// The body, `@FILE` for what a file holds, `-` for standard input. Sent as a form unless a content-type says otherwise
    #[arg(short, long, value_name = "DATA", conflicts_with = "json")]
    pub(crate) data: Option<String>,
    /// The same for JSON, which is sent byte for byte
    #[arg(long, value_name = "DATA")]
    pub(crate) json: Option<String>,
    /// A parameter of the query, encoded as needed; may be given several times
    #[arg(short = 'Q', long = "query", value_name = "NAME=VALUE", value_parser = parameter)]
    pub(crate) query: Vec<(String, String)>,
    /// Show the answer's status and headers on stderr
    #[arg(short, long)]
    pub(crate) include: bool,
    /// Write the answer's body to this file
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// How long one attempt may take, as `30s`
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) timeout: Option<Duration>,
    /// How long all of it may take, waiting and retries included
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub(crate) deadline: Option<Duration>,
    /// How often it is retried, or a mapping as in a call file
    #[arg(long, value_name = "N", value_parser = retry)]
    pub(crate) retry: Option<Value>,
    /// Calls with the same key and content are one call, where a server keeps them
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Use this directory's configuration, or the server that runs in it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["server", "token"], help_heading = "Server")]
    pub(crate) dir: Option<PathBuf>,
    /// Let the server at this URL make the call [env: FARCALL_SERVER]
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub(crate) server: Option<String>,
    /// The token it asks for; others see flags, prefer the variable [env: FARCALL_TOKEN]
    #[arg(long, value_name = "TOKEN", help_heading = "Server")]
    pub(crate) token: Option<Token>,
}

impl CallArgs {
    /// Which server is meant, if any.
    pub(crate) fn server(&self) -> ServerArgs {
        ServerArgs { dir: self.dir.clone(), server: self.server.clone(), token: self.token.clone() }
    }
}

fn parameter(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("a parameter is written NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn retry(text: &str) -> Result<Value, &'static str> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let is_valid = value.is_u64() || value.is_object();
    if is_valid { Ok(value) } else { Err("a number of retries, or a mapping as {\"max\": 3, \"wait\": 1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_has_a_name_and_a_retry_is_a_number_or_a_mapping() {
        assert_eq!(parameter("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parameter("a").is_err());
        assert_eq!(retry("3"), Ok(3.into()));
        assert!(retry(r#"{"max": 1}"#).is_ok());
        for wrong in ["-1", "often", "[1]", "1.5", ""] {
            assert!(retry(wrong).is_err(), "{wrong}");
        }
    }
}
