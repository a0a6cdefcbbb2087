//! Which server: a directory's socket or a URL, as flags and environment name it.
//!
//! A flag beats the environment; with neither it is the default directory's socket.

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use http::HeaderValue;
use url::{Host, Url};

use crate::args::client::{ServerArgs, Token};
use crate::context::Context;
use crate::directory;
use crate::exit::{Exit, Failure};

/// The socket of a directory, whatever `store.path` says.
const SOCKET: &str = ".farcall/farcall.sock";

/// A server that can be talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Socket { directory: PathBuf, socket: PathBuf },
    Url(Remote),
}

/// A server at a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(super) host: Host<String>,
    pub(super) port: u16,
    pub(super) is_https: bool,
    /// What its paths begin with, without a slash at the end; empty unless something stands before it.
    pub(super) prefix: String,
    pub(super) authorization: Option<HeaderValue>,
    shown: String,
}

impl Target {
    /// The server that was named, else that of the default directory.
    ///
    /// # Errors
    /// When what was named is no server, or nothing was and there is no home directory.
    pub(crate) fn of(context: &Context, args: &ServerArgs) -> Result<Self, Failure> {
        match Self::named(context, args)? {
            Some(target) => Ok(target),
            None => Ok(Self::socket(&directory::named(None, context.environment.home.as_deref(), ".farcall")?)),
        }
    }

    /// The server that flags or the environment name.
    ///
    /// # Errors
    /// When that is no URL of a server, or a token was given to a socket.
    pub(crate) fn named(context: &Context, args: &ServerArgs) -> Result<Option<Self>, Failure> {
        let environment = &context.environment;
        if let Some(directory) = &args.dir {
            return Ok(Some(Self::socket(directory)));
        }
        let flag = args.server.as_deref().map(|url| ("--server", url));
        let Some((origin, url)) = flag.or(environment.server.as_deref().map(|url| ("FARCALL_SERVER", url))) else {
            return match args.token {
                Some(_) => Err(Failure::usage("--token is for a server at a URL; name one with --server")),
                None => Ok(None),
            };
        };
        let token = args.token.as_ref().or(environment.token.as_ref());
        Remote::new(url, token).map(|remote| Some(Self::Url(remote))).map_err(|error| {
            let failure = Failure::new(Exit::Usage, error.context(format!("{origin} cannot be used: {url}")));
            failure.with_hint(match url.contains("://") {
                true => "a server is named like http://127.0.0.1:8888 or https://calls.example.com".to_owned(),
                false => format!("a server is named by its URL: http://{url} or https://{url}"),
            })
        })
    }

    /// The server that is to make calls: the one at the URL that was named, or that of the directory that was, if one
    /// runs there. Nothing when there is none, and whoever asks makes them.
    ///
    /// # Errors
    /// When what was named is no server.
    pub(crate) fn serving(context: &Context, args: &ServerArgs) -> Result<Option<Self>, Failure> {
        let Some(target) = Self::named(context, args)? else { return Ok(None) };
        let is_served = target.socket_path().is_none_or(|socket| {
            let connected = UnixStream::connect(socket);
            !connected.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused))
        });
        Ok(is_served.then_some(target))
    }

    fn socket(directory: &Path) -> Self {
        Self::Socket { directory: directory.to_owned(), socket: directory.join(SOCKET) }
    }

    /// Where it listens, when that is a socket.
    pub(crate) fn socket_path(&self) -> Option<&Path> {
        match self {
            Self::Socket { socket, .. } => Some(socket),
            Self::Url(_) => None,
        }
    }

    /// Its URL, when it is not known by a directory.
    pub(crate) fn url(&self) -> Option<&str> {
        match self {
            Self::Socket { .. } => None,
            Self::Url(remote) => Some(&remote.shown),
        }
    }

    /// Nothing can be sent there.
    pub(super) fn unreachable(&self, error: anyhow::Error) -> Failure {
        let kind = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
        let error = error.context(format!("cannot reach {self}"));
        match self {
            // Somebody else's: there is a server, and it is not for us.
            Self::Socket { .. } if kind == Some(std::io::ErrorKind::PermissionDenied) => {
                Failure::new(Exit::Usage, error).with_hint("only the user who runs that server may use its socket")
            }
            Self::Socket { directory, .. } => Failure::new(Exit::Unreachable, error).with_hint(format!(
                "start it with `farcall serve {}`, or name another with --dir or --server",
                directory.display()
            )),
            Self::Url(_) => Failure::new(Exit::Unreachable, error)
                .with_hint("is `farcall serve` running there? --dir or --server names another"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { socket, .. } => write!(f, "{}", socket.display()),
            Self::Url(remote) => f.write_str(&remote.shown),
        }
    }
}

impl Remote {
    fn new(text: &str, token: Option<&Token>) -> anyhow::Result<Self> {
        let url = Url::parse(text)?;
        let is_https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(anyhow!("its scheme is neither http nor https")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(anyhow!("a URL cannot carry the token; use --token or FARCALL_TOKEN"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(anyhow!("it has a query or a fragment"));
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(anyhow!("it has no host"));
        };
        let authorization = token.map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| anyhow!("the token cannot stand in a header"))?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        });
        Ok(Self {
            host: host.to_owned(),
            port,
            is_https,
            prefix: url.path().trim_end_matches('/').to_owned(),
            authorization: authorization.transpose()?,
            shown: url.as_str().trim_end_matches('/').to_owned(),
        })
    }

    /// Host and port as the Host header has them.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(text: &str) -> Result<Remote, String> {
        Remote::new(text, None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_is_a_host_a_port_and_what_paths_begin_with() {
        let check = |text: &str, expected: (&str, bool, &str)| {
            let remote = remote(text).expect("it names a server");
            assert_eq!((remote.authority().as_str(), remote.is_https, remote.prefix.as_str()), expected, "{text}");
        };
        check("http://localhost:8888", ("localhost:8888", false, ""));
        check("http://[::1]:8888/", ("[::1]:8888", false, ""));
        check("https://calls.example.com/farcall/", ("calls.example.com:443", true, "/farcall"));
    }

    #[test]
    fn what_names_no_server_is_refused() {
        for text in ["localhost:8888", "ftp://localhost", "http://user@localhost", "http://localhost?a", "", "/tmp"] {
            assert!(remote(text).is_err(), "{text}");
        }
        assert!(Remote::new("http://localhost", Some(&Token::from("a\nb".to_owned()))).is_err());
    }

    #[test]
    fn debug_output_holds_no_token() {
        let remote = Remote::new("http://localhost", Some(&Token::from("hush".to_owned()))).expect("it is a server");
        assert!(!format!("{remote:?}").contains("hush"));
    }
}
