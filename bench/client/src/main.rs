//! A client of farcall's HTTP API, on one thread of hyper: so many calls posted one by one on several connections, or in
//! requests of many lines. It waits for each answer, and fails unless every call was accepted. Figures are printed as JSON.
#![expect(clippy::print_stdout, reason = "stdout is where its figures go")]

use std::cell::Cell;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use bench_gauge::{Process, now_us};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

/// One run.
#[derive(Debug, Parser)]
struct Args {
    #[arg(value_enum)]
    way: Way,
    /// Where farcall listens.
    #[arg(long)]
    server: SocketAddr,
    /// Where the calls go.
    #[arg(long)]
    upstream: SocketAddr,
    #[arg(long, default_value_t = 100_000)]
    calls: u64,
    /// Requests at a time, each on a connection of its own.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Calls of a request; `bulk` alone.
    #[arg(long, default_value_t = 10_000)]
    lines: u64,
    /// Bytes of a call's body.
    #[arg(long, default_value_t = 400)]
    body: usize,
}

/// How calls are handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// One by one.
    Posts,
    /// Many in a request.
    Bulk,
}

/// What all connections share.
#[derive(Debug)]
struct Work {
    args: Args,
    /// The next call nobody has taken yet.
    next: Cell<u64>,
    text: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let text = "x".repeat(args.body.saturating_sub(r#"{"text":""}"#.len()));
    let work = Rc::new(Work { args, next: Cell::new(0), text });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begun_us = now_us();
    LocalSet::new().block_on(&runtime, hand_over(&work))?;
    let accept_s = (now_us() - begun_us) as f64 / 1e6;
    let cpu_s = Process::own().cpu()?.as_secs_f64();
    println!("{}", json!({ "begun_us": begun_us, "accept_s": accept_s, "cpu_s": cpu_s }));
    Ok(())
}

async fn hand_over(work: &Rc<Work>) -> Result<()> {
    let connections = if work.args.way == Way::Bulk { 1 } else { work.args.connections };
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let work = Rc::clone(work);
        tasks.spawn_local(async move { work.post_all().await });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a connection broke down")??;
    }
    Ok(())
}

impl Work {
    async fn post_all(&self) -> Result<()> {
        let stream = TcpStream::connect(self.args.server).await.context("nobody listens")?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        let share = if self.args.way == Way::Bulk { self.args.lines.max(1) } else { 1 };
        loop {
            let first = self.next.get();
            let end = self.args.calls.min(first + share);
            if first == end {
                return Ok(());
            }
            self.next.set(end);
            match self.args.way {
                Way::Posts => self.post(&mut sender, first).await?,
                Way::Bulk => self.post_many(&mut sender, first..end).await?,
            }
        }
    }

    async fn post(&self, sender: &mut SendRequest<Full<Bytes>>, number: u64) -> Result<()> {
        let (status, answer) = self.send(sender, "/v1/calls", "application/json", self.call(number)).await?;
        ensure!(status == StatusCode::ACCEPTED, "{status}: {}", String::from_utf8_lossy(&answer));
        Ok(())
    }

    async fn post_many(&self, sender: &mut SendRequest<Full<Bytes>>, numbers: std::ops::Range<u64>) -> Result<()> {
        let count = numbers.end - numbers.start;
        let mut body = String::new();
        numbers.for_each(|number| {
            body.push_str(&self.call(number));
            body.push('\n');
        });
        let (status, answer) = self.send(sender, "/v1/calls/bulk", "application/x-ndjson", body).await?;
        ensure!(status == StatusCode::OK, "{status}: {}", String::from_utf8_lossy(&answer));
        let mut accepted = 0;
        for line in answer.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Value = serde_json::from_slice(line)?;
            ensure!(line["id"].is_string(), "refused: {line}");
            accepted += 1;
        }
        ensure!(accepted == count, "{accepted} of {count} lines were answered");
        Ok(())
    }

    fn call(&self, number: u64) -> String {
        let mut call = String::with_capacity(self.text.len() + 128);
        let (upstream, text) = (self.args.upstream, &self.text);
        let _ = write!(call, r#"{{"url":"http://{upstream}/?n={number}","method":"POST","body":{{"text":"{text}"}}}}"#);
        call
    }

    async fn send(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        path: &str,
        media_type: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, self.args.server.to_string())
            .header(CONTENT_TYPE, media_type)
            .body(Full::new(Bytes::from(body)))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
