//! A batch: one call per line of an input, one result per line of an output, each line called once however often the
//! process is killed.
//!
//! The calls are durable ones of the engine's store. Their ids follow from the batch's (`line_ids`), a journal says how
//! far the input was submitted, and the output itself what was written. Neither calls nor results are held here: a
//! million lines take no more memory than ten thousand. Why it is made so: `docs/design/0032-batches.md`.

mod feed;
mod input;
mod journal;
mod line_ids;
mod output;
mod result;
mod results;
mod shared;
mod tally;

use std::io;
use std::sync::Arc;

use farcall_store::port::ReadError;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::handle::{Handle, SubmitError};
use feed::Feed;
use results::Results;
use shared::Shared;

pub use input::{CHUNK_LINES_MAX, Chunk, Input, InputError, Line};
pub use journal::{Exception, Journal, JournalError, Mark, Order, Past};
pub use line_ids::LineIds;
pub use output::{LineSet, Output, OutputError, Written, mend};
pub use shared::{AHEAD_LINES_MAX, Standing};
pub use tally::Tally;

/// A batch that is ready to run: its parts, as they were found.
#[derive(Debug)]
pub struct Batch {
    pub journal: Journal,
    pub past: Past,
    /// Read up to the mark of the past, and the lines that it is in doubt about.
    pub input: Input,
    pub in_doubt: Option<Chunk>,
    pub output: Output,
    pub written: Written,
    /// Of lines that name neither upstream nor URL.
    pub default_upstream: Option<String>,
}

/// A batch at work, for people who watch.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Shared>);

/// Why a batch did not come to its end. The same batch can be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("cannot write results")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The engine takes no calls, and nothing goes on that could change that.
    #[error(transparent)]
    Refused(SubmitError),
    /// The engine is stopping.
    #[error("the batch was interrupted")]
    Interrupted,
}

/// A name for whatever is known by these parts, the same every time: 32 hexadecimal digits.
pub fn name_of(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl Watch {
    /// How it stands now.
    pub fn standing(&self) -> Standing {
        self.0.standing()
    }
}

impl Past {
    /// That of a batch which begins now.
    pub fn none(ids: LineIds, order: Order) -> Self {
        let (mark, exceptions) = (Mark::default(), std::collections::BTreeMap::new());
        Self { ids, order, mark, in_doubt: None, exceptions, finished: None }
    }
}

impl Batch {
    /// Submits and writes until all is done, or `stop` says to submit no more: then it goes on writing until the engine
    /// is gone. True when every line has its result, durably.
    ///
    /// # Errors
    /// When it cannot go on. What was submitted is durable, and goes on as long as the engine does.
    pub async fn run(self, handle: Handle, stop: CancellationToken, watch: Watch) -> Result<bool, BatchError> {
        let Self { journal, past, input, in_doubt, output, written, default_upstream } = self;
        let (Watch(shared), ids, order) = (watch, past.ids, past.order);
        {
            let mut lines = shared.lock();
            lines.aliases =
                past.exceptions.iter().filter_map(|(&line, is)| Some((line, feed::original(is)?))).collect();
            lines.exceptions = past.exceptions.into_iter().filter(|(_, is)| feed::original(is).is_none()).collect();
            (lines.submitted, lines.bytes, lines.is_read) = (past.mark.lines, past.mark.bytes, past.mark.is_end);
            lines.tally = written.tally;
        }
        let ends = handle.ends().ok_or(BatchError::Interrupted)?;
        let (output, written) = (Some(output), written.lines);
        let mut results =
            Results { handle: handle.clone(), shared: Arc::clone(&shared), ids, order, output, ends, written, done: 0 };
        results.take_up(past.mark.lines).await?;
        let feed = Feed {
            handle,
            shared: Arc::clone(&shared),
            ids,
            order,
            journal,
            input: Some(input),
            in_doubt,
            default_upstream,
        };
        let feeding = async {
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(None),
                journal = feed.run() => journal.map(Some),
            }
        };
        let (journal, mut output) = tokio::try_join!(feeding, results.run())?;
        output.sync().or_else(|error| if is_unsyncable(&error) { Ok(()) } else { Err(BatchError::Output(error)) })?;
        let Some(mut journal) = journal.filter(|_| shared.lock().is_done()) else { return Ok(false) };
        let tally = shared.lock().tally.clone();
        journal.finished(&tally)?;
        Ok(true)
    }
}

/// Some files cannot be synced, and need not be.
fn is_unsyncable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(code) if code == rustix::io::Errno::INVAL.raw_os_error())
}
