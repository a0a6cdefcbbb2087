//! The HTTP executor against an upstream that answers well, badly, or not at all.

mod addresses;
mod answers;
mod connections;
mod faults;
mod http2;
mod milestones;
mod network;
mod proxies;
mod redirects;
mod tls;

use std::process::Command;

use bytes::Bytes;
use farcall_core::attempt::BytesSent;
use farcall_core::call::ErrorKind;
use farcall_core::time::Instant;
use farcall_engine::config::Addresses;
use farcall_engine::execute::http::{Transport, TransportSettings};
use farcall_engine::execute::{Coding, HttpRequest, Milestones, Report};
use http::{HeaderMap, Method};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::upstream::bounded;

/// Largest body that requests here accept.
const BODY_BYTES_MAX: u64 = 100_000;

fn transport() -> Transport {
    Transport::new(&TransportSettings::default()).expect("the defaults need no file")
}

fn get(url: Url) -> HttpRequest {
    request(Method::GET, url, "")
}

fn post(url: Url, body: impl Into<Bytes>) -> HttpRequest {
    request(Method::POST, url, body)
}

fn request(method: Method, url: Url, body: impl Into<Bytes>) -> HttpRequest {
    let (headers, body) = (HeaderMap::new(), body.into());
    HttpRequest {
        method,
        url,
        headers,
        body,
        coding: Coding::Removed,
        content_type: None,
        max_response: BODY_BYTES_MAX,
        addresses: Addresses::Any,
        proxy: None,
    }
}

async fn execute(transport: &Transport, request: HttpRequest) -> Report {
    bounded(transport.execute(request, None, CancellationToken::new())).await
}

/// The complete answer's status and body.
fn answer(report: &Report) -> (u16, &[u8]) {
    assert_eq!(report.result.error, None, "{report:?}");
    assert_eq!(report.result.bytes_sent, BytesSent::Maybe, "{report:?}");
    let response = report.response.as_ref().expect("a complete answer");
    assert_eq!(report.result.status, Some(response.status));
    assert_eq!(report.result.size, response.body.len() as u64);
    (response.status, &response.body)
}

/// Kind, bytes sent, status and body of an attempt that failed.
fn failure(report: &Report) -> (Option<ErrorKind>, BytesSent, Option<u16>, Option<&[u8]>) {
    assert!(report.message.is_some() && !report.aborted, "{report:?}");
    let body = report.response.as_ref().map(|response| response.body.as_ref());
    (report.result.error, report.result.bytes_sent, report.result.status, body)
}

/// Runs one ignored test of this program in a process and an environment of its own.
fn in_own_process(test: &str, environment: &[(&str, &str)]) {
    let program = std::env::current_exe().expect("a test is a program");
    let output = Command::new(program)
        .args(["--ignored", "--exact", test])
        .envs(environment.iter().copied())
        .output()
        .expect("a test can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Remembers what it was told.
#[derive(Debug, Default)]
struct Recorder {
    told: watch::Sender<Told>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Told {
    sent: Vec<Instant>,
    first_byte: Vec<Instant>,
}

impl Recorder {
    async fn until(&self, expected: impl FnMut(&Told) -> bool) {
        let mut told = self.told.subscribe();
        drop(bounded(told.wait_for(expected)).await.expect("the recorder outlives the wait"));
    }

    fn told(&self) -> Told {
        self.told.borrow().clone()
    }
}

impl Milestones for Recorder {
    fn sent(&self, at: Instant) {
        self.told.send_modify(|told| told.sent.push(at));
    }

    fn first_byte(&self, at: Instant) {
        self.told.send_modify(|told| told.first_byte.push(at));
    }
}
