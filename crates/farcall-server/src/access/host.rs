//! The host a request was meant for.
//!
//! RFC 9112, section 3.2: a request of HTTP/1.1 has exactly one Host, and an absolute target repeats it. Where the two
//! differ somebody is confused, or wants us to be.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::HOST;
use http::request::Parts;

use crate::problem::{Code, Problem};

/// Host and port as the client wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Authority<'a>(&'a str);

impl<'a> Authority<'a> {
    /// The one host of a request.
    pub(super) fn of(request: &'a Parts) -> Result<Self, Problem> {
        let malformed = |detail: &str| Problem::new(Code::MalformedRequest, detail).at_key("host");
        let mut hosts = request.headers.get_all(HOST).iter();
        let host = hosts.next().ok_or_else(|| malformed("the request has no Host header"))?;
        if hosts.next().is_some() {
            return Err(malformed("the request has more than one Host header"));
        }
        let host = host.to_str().map_err(|_| malformed("the Host header is no host"))?;
        match request.uri.authority() {
            Some(target) if !target.as_str().eq_ignore_ascii_case(host) => {
                Err(malformed("the request's target and its Host header name different hosts"))
            }
            _ => Ok(Self(host)),
        }
    }

    /// Whether this names the machine itself, with or without a port.
    pub(super) fn is_loopback(&self) -> bool {
        let Some((host, port)) = self.split() else { return false };
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return false;
        }
        host.eq_ignore_ascii_case("localhost") || is_loopback_address(host)
    }

    /// Whether an `Origin` is this very host, over plain HTTP as we serve it.
    pub(super) fn is_origin(&self, origin: &[u8]) -> bool {
        let Some(rest) = std::str::from_utf8(origin).ok().and_then(|origin| origin.strip_prefix("http://")) else {
            return false;
        };
        // Browsers leave the default port out.
        let plain = |authority: &'_ str| authority.strip_suffix(":80").unwrap_or(authority).to_ascii_lowercase();
        plain(rest) == plain(self.0)
    }

    /// Host and port; brackets stay with an IPv6 address.
    fn split(&self) -> Option<(&'a str, &'a str)> {
        let host_end =
            if self.0.starts_with('[') { self.0.find(']')? + 1 } else { self.0.find(':').unwrap_or(self.0.len()) };
        let (host, port) = self.0.split_at(host_end);
        if port.is_empty() { Some((host, "")) } else { port.strip_prefix(':').map(|port| (host, port)) }
    }
}

fn is_loopback_address(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse() == Ok(Ipv6Addr::LOCALHOST),
        None => host.parse::<Ipv4Addr>().is_ok_and(|v4| v4.is_loopback()),
    }
}
