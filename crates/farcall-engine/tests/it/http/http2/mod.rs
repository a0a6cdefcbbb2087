//! HTTP/2 to an upstream that plays its faults frame by frame.

mod faults;
mod floods;
mod peer;
mod requests;
mod sharing;

use std::sync::Arc;

use farcall_engine::execute::Report;
use farcall_engine::execute::http::{Transport, TransportSettings};
use tokio::task::JoinHandle;

use self::peer::Peers;
use super::tls::Authority;
use super::{execute, get, post};

/// Attempts at once, as tasks.
fn start(transport: &Arc<Transport>, upstream: &Peers, count: usize) -> Vec<JoinHandle<Report>> {
    let attempt = |number| {
        let (transport, request) = (Arc::clone(transport), post(upstream.url("/"), format!("order {number}")));
        tokio::spawn(async move { execute(&transport, request).await })
    };
    (0..count).map(attempt).collect()
}

async fn ended(attempts: Vec<JoinHandle<Report>>) -> Vec<Report> {
    let mut reports = Vec::new();
    for attempt in attempts {
        reports.push(attempt.await.expect("an attempt does not panic"));
    }
    reports
}

fn settings(authority: &Authority) -> TransportSettings {
    TransportSettings { ca_file: Some(authority.file()), ..TransportSettings::default() }
}

fn transport(settings: &TransportSettings) -> Arc<Transport> {
    Arc::new(Transport::new(settings).expect("a good authority file"))
}
