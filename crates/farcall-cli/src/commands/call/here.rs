//! A call made here: an engine in memory that lives for this one call.
//!
//! It has the upstream's limits, headers, secrets and retries of a directory's configuration, and looks at nothing else
//! there: what others send from that directory does not count here, and this call is kept nowhere.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use bytes::Bytes;
use farcall_core::call::{Source, Via};
use farcall_core::id::CallId;
use farcall_engine::config::{Config, Upstream};
use farcall_engine::document::{self, Routing};
use farcall_engine::{Engine, Handle, Options, OutcomeRecord, Submission, result_file};
use farcall_store::memory::MemoryStore;

use super::{Answer, Ended, Problem, not_understood};
use crate::args::call::CallArgs;
use crate::context::{Context, log_warnings};
use crate::directory;
use crate::exit::{Exit, Failure};
use crate::session::{self, OWN_PROGRAM};
use crate::signals::Signals;

/// Makes the call; nothing when it was interrupted.
///
/// # Errors
/// With exit code 2 for the configuration or a document that is no call.
pub(super) fn call(context: &Context, args: &CallArgs, bytes: Bytes) -> Result<Option<Ended>, Failure> {
    let directory = directory(context, args)?;
    let loaded = context.load_for_one_call(&directory)?;
    log_warnings(&loaded.warnings);
    let mut config = loaded.config;
    calls_nobody_back(&mut config);
    let document = document::parse(&bytes, &Routing::from(&config)).map_err(not_understood)?;
    let options = Options { directory, config: Arc::new(config), launcher: OWN_PROGRAM.into() };
    let (source, via, scope) = (Source::Library, Via::User, String::new());
    let submission =
        Submission { document: Box::new(document), bytes, source, via, file: None, scope, retry_of: None, id: None };
    let mut ended = None;
    session::block_on(async {
        let mut signals = Signals::catch().map_err(|error| Failure::new(Exit::Usage, error))?;
        let engine = Engine::start_without_files(Box::new(MemoryStore::new()), options)
            .map_err(|error| Failure::new(Exit::Usage, error))?;
        tokio::select! {
            outcome = outcome(engine.handle(), submission) => ended = Some(of(&outcome?)),
            _ = signals.next() => {}
        }
        Ok(Exit::Ok)
    })?;
    Ok(ended)
}

/// The one that was named, else the default one, which need not be there.
fn directory(context: &Context, args: &CallArgs) -> Result<PathBuf, Failure> {
    match &args.dir {
        Some(dir) => directory::existing(dir),
        None => {
            let home = context.environment.home.as_deref().unwrap_or(&context.environment.temporary);
            directory::named(None, Some(home), ".farcall")
        }
    }
}

/// Somebody is waiting for the outcome already; and nothing of the directory is removed.
fn calls_nobody_back(config: &mut Config) {
    let mute = |upstream: &mut Upstream| (upstream.callback_success, upstream.callback_fail) = (None, None);
    config.upstreams.change_all(mute);
    mute(&mut config.undeclared);
    config.inbox.keep = None;
}

async fn outcome(handle: &Handle, submission: Submission) -> Result<OutcomeRecord, Failure> {
    let gone = || Failure::new(Exit::CallFailed, anyhow!("the call has gone astray"));
    let accepted = handle.submit(submission).await.map_err(not_understood)?;
    let mut end = handle.end_of(accepted.id).await;
    let outcome = read(handle, accepted.id).await?.ok_or_else(gone)?;
    if outcome.call.progress.state.is_end() {
        return Ok(outcome);
    }
    match end.wait().await {
        true => read(handle, accepted.id).await?.ok_or_else(gone),
        false => Err(gone()),
    }
}

async fn read(handle: &Handle, id: CallId) -> Result<Option<OutcomeRecord>, Failure> {
    let found = handle.outcomes(vec![id], 0).await.map_err(|error| Failure::new(Exit::CallFailed, error))?;
    Ok(found.into_iter().next().flatten())
}

fn of(outcome: &OutcomeRecord) -> Ended {
    let progress = &outcome.call.progress;
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Ended {
        state: progress.state.to_string(),
        error: progress
            .error
            .as_ref()
            .map(|error| Problem { kind: error.kind.to_string(), message: error.message.clone() }),
        answer: outcome.response.as_ref().map(|answer| Answer {
            status: answer.status,
            headers: answer.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            body: answer.body.clone(),
        }),
        outcome: result_file::response(&outcome.call, outcome.response.as_ref()).into(),
    }
}
