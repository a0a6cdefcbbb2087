//! The inbox of a running engine: what the intake finds is submitted, and the intake is told what became of it.
//!
//! The intake knows files, the engine knows calls; here they meet. A file whose idempotency key an earlier call of the
//! same content holds gets a copy of that call's outcome, as soon as there is one.

use std::sync::Arc;

use farcall_core::call::{Source, Via};
use farcall_core::id::CallId;
use farcall_store::port::ReadError;
use tokio::sync::mpsc;

use crate::cause::chain;
use crate::handle::{Handle, Submission, SubmitError};
use crate::intake::{Found, Offer, Verdict};
use crate::result_file::{self, Ended, Filing};

/// Submits what the intake offers until it ends.
pub(crate) async fn serve(mut offers: mpsc::Receiver<Offer>, handle: Handle, filing: Arc<Filing>) {
    while let Some(offer) = offers.recv().await {
        let submissions = offer.files.into_iter().map(|found| judge(found, handle.clone(), Arc::clone(&filing)));
        let tasks: Vec<_> = submissions.map(tokio::spawn).collect();
        let mut verdicts = Vec::with_capacity(tasks.len());
        for task in tasks {
            verdicts.push(task.await.unwrap_or(Verdict::Refused));
        }
        // An intake that is gone finds its files again at the next start.
        let _ = offer.verdicts.send(verdicts);
    }
}

async fn judge(found: Found, handle: Handle, filing: Arc<Filing>) -> Verdict {
    let Found { file, bytes, document } = found;
    let (name, request) = (file.name.clone(), bytes.clone());
    let submission = Submission {
        document: Box::new(document),
        bytes,
        source: Source::Inbox,
        via: Via::User,
        file: Some(file),
        scope: String::new(),
    };
    match handle.submit(submission).await {
        Ok(accepted) if accepted.is_replay => {
            let ended = match copy_of(accepted.id, name, request, &handle).await {
                Ok(Some(ended)) => ended,
                Ok(None) => return Verdict::Awaited,
                Err(_) => return Verdict::Refused,
            };
            file_copy(ended, filing).await
        }
        Ok(accepted) => Verdict::Taken(accepted.id),
        Err(error @ (SubmitError::Rejected(_) | SubmitError::KeyReused { .. })) => Verdict::Rejected(error.into()),
        Err(
            SubmitError::StoreFull { .. } | SubmitError::NoSpace | SubmitError::StoreFailed | SubmitError::Draining,
        ) => Verdict::Refused,
    }
}

/// The outcome of the call that holds the key, under another file's name; nothing while it has not ended.
async fn copy_of(
    id: CallId,
    name: Vec<u8>,
    request: bytes::Bytes,
    handle: &Handle,
) -> Result<Option<Ended>, ReadError> {
    let outcome = handle.reads.outcome(id).await?;
    let ended = outcome.filter(|(record, _)| record.progress.state.is_end());
    Ok(ended.map(|(record, answer)| {
        let response = result_file::response(&record, answer.as_ref());
        Ended { id, name, response, request }
    }))
}

async fn file_copy(ended: Ended, filing: Arc<Filing>) -> Verdict {
    let id = ended.id;
    let task = tokio::task::spawn_blocking(move || {
        filing.claim(&ended.name, ended.id);
        filing.file(&[ended]).pop()
    });
    match task.await {
        Ok(Some(Ok(_))) => Verdict::Known(id),
        Ok(Some(Err(error))) => {
            tracing::warn!(error = chain(&error), "cannot put a response file in place, trying again");
            Verdict::Refused
        }
        Ok(None) | Err(_) => Verdict::Refused,
    }
}
