//! Handing calls to the engine as a bulk intake does: text in, parsed, a thousand at a time, few batches in flight.
//!
//! A call that is refused ends the run. Each of several upstreams is an address of loopback of its own, so an origin, and
//! they take turns.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use farcall_core::call::{Source, State, Via};
use farcall_engine::document::{Routing, parse};
use farcall_engine::{Handle, SUBMISSIONS_MAX, Submission};
use tokio::task::JoinSet;

/// Batches that wait for their commit at a time.
const IN_FLIGHT: usize = 4;
/// A prime, so that no number of upstreams that is used has it as a factor.
const STRIDE: u64 = 7_919;

/// The calls of a run.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    /// The first of its upstreams.
    pub(crate) upstream: SocketAddr,
    pub(crate) upstreams: u32,
    pub(crate) body_bytes: usize,
}

/// Submits those of these numbers and returns when all are durable.
pub(crate) async fn submit(handle: &Handle, calls: &Calls, mut numbers: Range<u64>) -> Result<()> {
    let mut batches = JoinSet::new();
    let body = calls.body();
    while !numbers.is_empty() {
        let batch = numbers.by_ref().take(SUBMISSIONS_MAX);
        let batch = batch.map(|number| calls.submission(number, &body, handle)).collect::<Result<Vec<_>>>()?;
        if batches.len() == IN_FLIGHT {
            done(&mut batches).await?;
        }
        let handle = handle.clone();
        batches.spawn(async move { handle.submit_many(batch).await.into_iter().filter(Result::is_err).count() });
    }
    while !batches.is_empty() {
        done(&mut batches).await?;
    }
    Ok(())
}

/// Submits one for each that ends, so that always `open` of them have not ended, until `ended` more have.
pub(crate) async fn keep_open(handle: &Handle, calls: &Calls, open: u64, ended: u64) -> Result<()> {
    let mut snapshots = handle.snapshots();
    let ended_before = tally(handle).1;
    let mut batches = JoinSet::new();
    let body = calls.body();
    let mut submitted = tally(handle).0;
    loop {
        let (_, ended_now) = tally(handle);
        if ended_now >= ended_before + ended {
            break;
        }
        let missing = (ended_now + open).saturating_sub(submitted).min(SUBMISSIONS_MAX as u64);
        if missing == 0 {
            snapshots.changed().await.context("the engine has ended")?;
            continue;
        }
        let batch = (submitted..submitted + missing).map(|number| calls.submission(number, &body, handle));
        let batch = batch.collect::<Result<Vec<_>>>()?;
        submitted += missing;
        let handle = handle.clone();
        batches.spawn(async move { handle.submit_many(batch).await.into_iter().filter(Result::is_err).count() });
        if batches.len() == IN_FLIGHT {
            done(&mut batches).await?;
        }
    }
    while !batches.is_empty() {
        done(&mut batches).await?;
    }
    Ok(())
}

/// Calls accepted, and those of them that have ended.
fn tally(handle: &Handle) -> (u64, u64) {
    let census = handle.snapshot().census;
    let ended = State::ALL.iter().filter(|state| state.is_end()).map(|state| census.calls(*state)).sum();
    (census.accepted, ended)
}

async fn done(batches: &mut JoinSet<usize>) -> Result<()> {
    let refused = batches.join_next().await.context("a batch is out")??;
    ensure!(refused == 0, "{refused} calls were refused");
    Ok(())
}

impl Calls {
    /// The address of an upstream: 127.0.0.1, 127.0.0.2 and so on, 250 in each network of 256.
    pub(crate) fn address(&self, number: u32) -> SocketAddr {
        let IpAddr::V4(first) = self.upstream.ip() else { return self.upstream };
        let place = u32::from(first) + number / 250 * 256 + number % 250;
        SocketAddr::new(Ipv4Addr::from(place).into(), self.upstream.port())
    }

    fn body(&self) -> String {
        format!(r#"{{"text":"{}"}}"#, "x".repeat(self.body_bytes.saturating_sub(11)))
    }

    fn submission(&self, number: u64, body: &str, handle: &Handle) -> Result<Submission> {
        // In turns, but in no order that an index would have them in.
        let upstream = self.address(u32::try_from(number * STRIDE % u64::from(self.upstreams))?);
        let text = format!(r#"{{"url":"http://{upstream}/bulk?n={number}","method":"POST","body":{body}}}"#);
        let bytes = Bytes::from(text);
        let document = Box::new(parse(&bytes, &Routing::from(handle.config().as_ref()))?);
        Ok(Submission {
            document,
            bytes,
            source: Source::Bulk,
            via: Via::Tcp,
            file: None,
            scope: String::new(),
            retry_of: None,
            id: None,
        })
    }
}
