//! The engine of this process carries a batch out.
//!
//! Calls get the ids that follow from the batch, and are read from the store.

use bytes::Bytes;
use farcall_core::call::{Source, State, Via};
use farcall_core::id::CallId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::BatchError;
use super::carrier::{Answer, Carrier, Ends, News, Offer, Told};
use super::result;
use crate::document::{self, Routing};
use crate::handle::{Handle, Submission, SubmitError};

/// An engine in this process.
#[derive(Debug, Clone)]
pub struct Here(pub Handle);

/// Ends of all its calls; closed when the engine is gone.
#[derive(Debug)]
pub struct Heard {
    ends: broadcast::Receiver<CallId>,
    has_missed: bool,
}

impl Carrier for Here {
    type Ends = Heard;

    fn ends(&self) -> Result<Heard, BatchError> {
        Ok(Heard { ends: self.0.ends().ok_or(BatchError::Interrupted)?, has_missed: false })
    }

    async fn offer(&self, offers: Vec<Offer>) -> Result<Vec<Answer>, BatchError> {
        let config = self.0.config();
        let reading = tokio::task::spawn_blocking(move || {
            let routing = Routing::from(&*config);
            let read = offers.into_iter().map(|Offer { id, text }| {
                let document = document::parse(&text, &routing)?;
                Ok(submission(id, text, document))
            });
            read.collect::<Vec<_>>()
        });
        let read = reading.await.map_err(|_| BatchError::Interrupted)?;
        let (mut submissions, mut answers) = (Vec::with_capacity(read.len()), Vec::with_capacity(read.len()));
        for submission in read {
            match submission {
                Ok(submission) => {
                    answers.push(None);
                    submissions.push(submission);
                }
                Err(rejection) => answers.push(Some(rejection)),
            }
        }
        let mut submitted = self.0.submit_many(submissions).await.into_iter();
        let answers = answers.into_iter().map(|answer| match answer {
            Some(rejection) => Ok(Answer::Rejected(rejection)),
            None => match submitted.next().unwrap_or(Err(SubmitError::StoreFailed)) {
                Ok(accepted) => Ok(Answer::Accepted(accepted.id)),
                Err(error @ (SubmitError::Rejected(_) | SubmitError::KeyReused { .. })) => {
                    Ok(Answer::Rejected(error.into()))
                }
                Err(SubmitError::Draining) => Err(BatchError::Interrupted),
                Err(error) => Ok(Answer::Refused(error.into())),
            },
        });
        answers.collect()
    }

    async fn states(&self, calls: Vec<CallId>) -> Result<Vec<Option<State>>, BatchError> {
        Ok(self.0.states(calls).await?)
    }

    async fn outcomes(&self, calls: Vec<(u32, CallId)>, bytes_max: usize) -> Result<Vec<Option<Told>>, BatchError> {
        let ids = calls.iter().map(|(_, id)| *id).collect();
        let outcomes = self.0.outcomes(ids, bytes_max).await?;
        let told = calls.iter().zip(outcomes).map(|(&(line, _), outcome)| {
            let outcome = outcome?;
            Some(Told { state: outcome.call.progress.state, text: result::of_call(line, &outcome) })
        });
        Ok(told.collect())
    }
}

impl Ends for Heard {
    async fn next(&mut self) -> News {
        if std::mem::take(&mut self.has_missed) {
            return News::Missed;
        }
        let mut ended = match self.ends.recv().await {
            Ok(call) => vec![call],
            Err(RecvError::Lagged(_)) => return News::Missed,
            Err(RecvError::Closed) => return News::Gone,
        };
        // What else is there already. That it is closed is told the next time.
        loop {
            match self.ends.try_recv() {
                Ok(call) => ended.push(call),
                Err(TryRecvError::Lagged(_)) => self.has_missed = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return News::Ended(ended),
            }
        }
    }
}

fn submission(id: CallId, bytes: Bytes, document: document::Document) -> Submission {
    let (source, via, scope) = (Source::Batch, Via::User, String::new());
    let document = Box::new(document);
    Submission { document, bytes, source, via, file: None, scope, retry_of: None, id: Some(id) }
}
