//! `farcall serve [DIR]`, and all of `kofaf [dir]`: watches a directory and answers the API until it is stopped.
//!
//! The first signal drains: nothing more is sent, what is in flight may finish, and the API goes on telling so. The
//! second stops at once. What waits stays for the next start either way.

use std::path::Path;

use anyhow::anyhow;
use tracing::Level;

use crate::api::{Api, Bound};
use crate::args::Dir;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::reload::Reloader;
use crate::session::{self, Opened, Session};
use crate::signals::{Signals, Stop};

pub(crate) fn run(context: &Context, dir: &Dir) -> Result<Exit, Failure> {
    let dir = context.directory(dir)?;
    context.start_logging(Level::INFO, None)?;
    session::block_on(serve(context, &dir))
}

async fn serve(context: &Context, dir: &Path) -> Result<Exit, Failure> {
    let mut signals = Signals::catch().map_err(|error| Failure::new(Exit::Usage, error))?;
    let mut reloader = Reloader::new(context, dir).map_err(|error| Failure::new(Exit::Usage, error))?;
    let opened = Opened::open(context, dir)?;
    let bound = Bound::bind(&opened).await?;
    let mut session = opened.start()?;
    let api = bound.serve(session.handle.clone());
    announce(&session, &api);
    let stop = loop {
        tokio::select! {
            stop = signals.next() => break stop,
            () = reloader.wanted() => reloader.apply(&session, api.address).await,
            ended = session.ended() => return Err(unasked(ended)),
        }
    };
    tokio::select! {
        drained = drain(session, api, stop) => drained,
        _ = signals.next() => Ok(at_once()),
    }
}

fn at_once() -> Exit {
    tracing::warn!("stopped before all was drained");
    Exit::Interrupted
}

async fn drain(mut session: Session, api: Api, stop: Stop) -> Result<Exit, Failure> {
    let in_flight = session.handle.snapshot().in_flight;
    tracing::info!(in_flight, "stopping, what is in flight may finish; a second signal stops at once");
    session.handle.drain().await;
    let ended = session.ended().await;
    api.stop().await;
    ended?;
    tracing::info!("stopped");
    Ok(match stop {
        Stop::Terminate => Exit::Ok,
        Stop::Interrupt => Exit::Interrupted,
    })
}

fn announce(session: &Session, api: &Api) {
    let config = session.handle.config();
    let listen = api.address.map_or_else(|| "none".to_owned(), |address| address.to_string());
    tracing::info!(
        directory = %session.directory.display(),
        %listen,
        socket = %api.socket.display(),
        upstreams = config.upstreams.len(),
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    if api.address.is_some() && config.server.tokens.is_empty() {
        tracing::warn!(%listen, "without tokens, whoever reaches this address acts as you");
    }
}

/// An engine that ends by itself has lost its store, and has said so.
fn unasked(ended: Result<(), Failure>) -> Failure {
    ended.err().unwrap_or_else(|| Failure::new(Exit::Directory, anyhow!("the engine has ended")))
}
