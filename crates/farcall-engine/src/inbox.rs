//! The inbox of a running engine: what the intake finds is submitted, and the intake is told what became of it.
//!
//! The intake knows files, the engine knows calls; here they meet. A file whose idempotency key an earlier call of the
//! same content holds gets a copy of that call's outcome, as soon as there is one.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use farcall_core::call::{Source, Via};
use farcall_core::id::CallId;
use farcall_store::port::ReadError;
use farcall_store::record::FileIdentity;
use tokio::sync::mpsc;

use crate::cause::chain;
use crate::handle::{Handle, Submission, SubmitError};
use crate::intake::{Found, Offer, Verdict};
use crate::result_file::{self, Ended, Filing};
use crate::run::survived;

/// Submits what the intake offers until it ends.
pub(crate) async fn serve(mut offers: mpsc::Receiver<Offer>, handle: Handle, filing: Arc<Filing>) {
    while let Some(offer) = offers.recv().await {
        // Without an answer the intake knows that one of the files is to blame, and finds out which.
        if let Some(verdicts) = survived(pin!(judge(offer.files, &handle, &filing))).await {
            // An intake that is gone finds its files again at the next start.
            let _ = offer.verdicts.send(verdicts);
        }
    }
}

async fn judge(files: Vec<Found>, handle: &Handle, filing: &Arc<Filing>) -> Vec<Verdict> {
    let sources: Vec<(FileIdentity, Bytes)> =
        files.iter().map(|found| (found.file.clone(), found.bytes.clone())).collect();
    let answers = handle.submit_many(files.into_iter().map(submission).collect()).await;
    let mut verdicts = Vec::with_capacity(sources.len());
    let mut copies = Vec::new();
    for (answer, (file, request)) in answers.into_iter().zip(sources) {
        verdicts.push(match answer {
            Ok(accepted) if accepted.is_replay => match copy_of(accepted.id, file, request, handle).await {
                Ok(Some(ended)) => {
                    copies.push((verdicts.len(), ended));
                    Verdict::Known(accepted.id)
                }
                Ok(None) => Verdict::Awaited,
                Err(_) => Verdict::Refused,
            },
            Ok(accepted) => Verdict::Taken(accepted.id),
            Err(error @ (SubmitError::Rejected(_) | SubmitError::KeyReused { .. })) => Verdict::Rejected(error.into()),
            Err(
                SubmitError::StoreFull { .. } | SubmitError::NoSpace | SubmitError::StoreFailed | SubmitError::Draining,
            ) => Verdict::Refused,
        });
    }
    for index in file_copies(copies, filing).await {
        verdicts[index] = Verdict::Awaited;
    }
    verdicts
}

fn submission(Found { file, bytes, document }: Found) -> Submission {
    Submission {
        document: Box::new(document),
        bytes,
        source: Source::Inbox,
        via: Via::User,
        file: Some(file),
        scope: String::new(),
        retry_of: None,
        id: None,
    }
}

/// The outcome of the call that holds the key, for another file; nothing while it has not ended.
async fn copy_of(id: CallId, file: FileIdentity, request: Bytes, handle: &Handle) -> Result<Option<Ended>, ReadError> {
    let outcome = handle.reads.outcome(id).await?;
    let ended = outcome.filter(|(record, _)| record.progress.state.is_end());
    Ok(ended.map(|(record, answer)| {
        let response = result_file::response(&record, answer.as_ref());
        Ended { id, file, response, request, is_again: true }
    }))
}

/// Puts copies in place; gives the places in their batch of those that are not.
async fn file_copies(copies: Vec<(usize, Ended)>, filing: &Arc<Filing>) -> Vec<usize> {
    if copies.is_empty() {
        return Vec::new();
    }
    let (places, batch): (Vec<usize>, Vec<Ended>) = copies.into_iter().unzip();
    let filing = Arc::clone(filing);
    let task = tokio::task::spawn_blocking(move || {
        batch.iter().for_each(|ended| filing.claim(&ended.file.name, ended.id));
        filing.file(&batch)
    });
    let Ok(results) = task.await else { return places };
    let failed = places.into_iter().zip(results).filter_map(|(place, result)| Some((place, result.err()?)));
    let failed = failed.inspect(|(_, error)| {
        tracing::warn!(error = chain(error), "cannot put a response file in place, trying again");
    });
    failed.map(|(place, _)| place).collect()
}
