//! A forward proxy as it is configured: `http://[user:password@]host[:port]`.
//!
//! Read when the configuration is loaded, to find mistakes, and again when a request is sent, because its credentials
//! may be references to secrets. Nothing of it is shown: not the host either, which could be a part of a secret.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// The way to a forward proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// The value of `proxy-authorization`; marked as sensitive.
    pub(crate) authorization: Option<HeaderValue>,
}

/// Why a text names no proxy. Never with the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    #[error("a proxy is written as `http://host:port`")]
    NotUrl,
    #[error("a proxy is reached by `http://`; nothing else is supported")]
    Scheme,
    #[error("a proxy has no path, query or fragment")]
    Path,
}

impl Proxy {
    /// Reads a proxy's URL; user and password in it are percent-encoded where they must be.
    ///
    /// # Errors
    /// What is no URL, not of the scheme `http`, or more than a host with its port.
    ///
    /// # Example
    /// ```
    /// # use farcall_engine::proxy::{Proxy, ProxyError};
    /// assert!(Proxy::parse("http://shop:s3cret@10.0.0.1:3128").is_ok());
    /// assert_eq!(Proxy::parse("socks5://10.0.0.1:1080"), Err(ProxyError::Scheme));
    /// ```
    pub fn parse(text: &str) -> Result<Self, ProxyError> {
        if text.contains(['\\', ' ']) || text.contains(|c: char| c.is_ascii_control()) {
            return Err(ProxyError::NotUrl);
        }
        let url = Url::parse(text).map_err(|_| ProxyError::NotUrl)?;
        if url.scheme() != "http" {
            return Err(ProxyError::Scheme);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyError::Path);
        }
        let host = url.host().ok_or(ProxyError::NotUrl)?.to_owned();
        let port = url.port_or_known_default().ok_or(ProxyError::NotUrl)?;
        Ok(Self { host, port, authorization: authorization(&url) })
    }
}

/// Basic credentials (RFC 7617).
fn authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut credentials: Vec<u8> = percent_decode_str(url.username()).collect();
    credentials.push(b':');
    credentials.extend(percent_decode_str(url.password().unwrap_or_default()));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(credentials))).expect("base64 is ASCII");
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: (&str, u16, Option<&str>)) {
        let proxy = Proxy::parse(text).expect("a proxy");
        let authorization = proxy.authorization.as_ref().map(|value| value.to_str().expect("ASCII"));
        assert_eq!((proxy.host.to_string().as_str(), proxy.port, authorization), expected, "{text}");
    }

    #[test]
    fn a_proxy_has_a_host_a_port_and_credentials() {
        check("http://10.0.0.1:3128", ("10.0.0.1", 3128, None));
        check("HTTP://Proxy.Test", ("proxy.test", 80, None));
        check("http://[::1]:3128/", ("[::1]", 3128, None));
        // RFC 7617's own example.
        check("http://Aladdin:open%20sesame@p:1", ("p", 1, Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")));
        check("http://token@p:1", ("p", 1, Some("Basic dG9rZW46")));
        check("http://a%40b:c%3Ad@p:1", ("p", 1, Some("Basic YUBiOmM6ZA==")));
    }

    #[test]
    fn anything_else_is_none() {
        for (text, expected) in [
            ("10.0.0.1:3128", ProxyError::NotUrl),
            ("proxy", ProxyError::NotUrl),
            ("http://", ProxyError::NotUrl),
            ("http://a b:1", ProxyError::NotUrl),
            ("http://a\n:1", ProxyError::NotUrl),
            ("https://p:1", ProxyError::Scheme),
            ("socks5://p:1", ProxyError::Scheme),
            ("http://p:1/x", ProxyError::Path),
            ("http://p:1?x", ProxyError::Path),
        ] {
            assert_eq!(Proxy::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let shown = format!("{:?}", Proxy::parse("http://user:canary@host:1"));
        assert!(!shown.contains("canary") && !shown.contains("user") && !shown.contains("Basic"), "{shown}");
    }
}
