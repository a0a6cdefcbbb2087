//! Handing calls to the engine as a bulk intake does: text in, parsed, a thousand at a time, few batches in flight.
//!
//! A call that is refused ends the run.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use farcall_core::call::{Source, Via};
use farcall_engine::document::{Routing, parse};
use farcall_engine::{Handle, SUBMISSIONS_MAX, Submission};
use tokio::task::JoinSet;

/// Batches that wait for their commit at a time.
const IN_FLIGHT: usize = 4;

/// The calls of a run.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    pub(crate) upstream: SocketAddr,
    pub(crate) count: u64,
    pub(crate) body_bytes: usize,
}

/// Submits all of them and returns when all are durable.
pub(crate) async fn submit(handle: &Handle, calls: &Calls) -> Result<()> {
    let mut batches = JoinSet::new();
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(calls.body_bytes.saturating_sub(11)));
    let mut numbers = 0..calls.count;
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

async fn done(batches: &mut JoinSet<usize>) -> Result<()> {
    let refused = batches.join_next().await.context("a batch is out")??;
    ensure!(refused == 0, "{refused} calls were refused");
    Ok(())
}

impl Calls {
    fn submission(&self, number: u64, body: &str, handle: &Handle) -> Result<Submission> {
        let Self { upstream, .. } = self;
        let text = format!(r#"{{"url":"http://{upstream}/bulk?n={number}","method":"POST","body":{body}}}"#);
        let bytes = Bytes::from(text);
        let document = Box::new(parse(&bytes, &Routing::from(handle.config().as_ref()))?);
        Ok(Submission { document, bytes, source: Source::Bulk, via: Via::Tcp, file: None, scope: String::new() })
    }
}
