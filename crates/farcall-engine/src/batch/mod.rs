//! A batch: one call per line of an input, one result per line of an output, each line called once however often the
//! process is killed.
//!
//! The calls are durable ones, of the engine in this process or of a server (`carrier`). Their ids follow from the batch's
//! (`line_ids`) or stand in a file (`call_ids`), a journal says how far the input was submitted, and the output itself
//! what was written. Neither calls nor results are held here: a million lines take no more memory than ten thousand. Why
//! it is made so: `docs/design/0032-batches.md`, `docs/design/0036-a-batch-through-a-server.md`.

mod call_ids;
mod carrier;
mod feed;
mod here;
mod input;
mod journal;
mod line_ids;
mod output;
mod result;
mod results;
mod shared;
mod tally;

use std::error::Error;
use std::io;
use std::sync::Arc;

use farcall_store::port::ReadError;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use feed::Feed;
use results::Results;
use shared::Shared;

pub use call_ids::CallIds;
pub use carrier::{Answer, Carrier, Ends, News, Offer, Told};
pub use feed::{Doubt, First, Writing};
pub use here::Here;
pub use input::{CHUNK_LINES_MAX, Chunk, Input, InputError, Line};
pub use journal::{Exception, Journal, JournalError, Mark, Order, Past};
pub use line_ids::LineIds;
pub use output::{LineSet, Output, OutputError, Written, mend};
pub use result::told;
pub use shared::{AHEAD_LINES_MAX, Standing};
pub use tally::Tally;

/// A batch that is ready to run: its parts, as they were found.
#[derive(Debug)]
pub struct Batch {
    pub journal: Journal,
    pub past: Past,
    pub calls: CallIds,
    /// Read up to the mark of the past, and the first lines after that.
    pub input: Input,
    pub first: Option<First>,
    pub output: Output,
    pub written: Written,
    pub writing: Writing,
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
    #[error("cannot read and write which calls the batch's lines are")]
    Ids(#[from] io::Error),
    /// No calls are taken, and nothing goes on that could change that.
    #[error(transparent)]
    Refused(Box<dyn Error + Send + Sync>),
    /// Who carries the calls out cannot go on, and says why.
    #[error(transparent)]
    Carrier(Box<dyn Error + Send + Sync>),
    /// The engine is stopping, or somebody said that it is enough.
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

impl Batch {
    /// Submits and writes until all is done, or `stop` says to submit no more: then it goes on writing until nothing more
    /// is heard of ends. True when every line has its result, durably.
    ///
    /// # Errors
    /// When it cannot go on. What was submitted is durable, and goes on as long as whoever carries it out does.
    pub async fn run<C: Carrier>(self, carrier: C, stop: CancellationToken, watch: Watch) -> Result<bool, BatchError> {
        let Self { journal, past, calls, input, first, output, written, writing } = self;
        let (Watch(shared), order, carrier, calls) = (watch, past.order, Arc::new(carrier), Arc::new(calls));
        {
            let mut lines = shared.lock();
            lines.exceptions = past.exceptions;
            (lines.submitted, lines.bytes, lines.is_read) = (past.mark.lines, past.mark.bytes, past.mark.is_end);
            lines.tally = written.tally;
        }
        let mut results = Results {
            carrier: Arc::clone(&carrier),
            shared: Arc::clone(&shared),
            calls: Arc::clone(&calls),
            order,
            output: Some(output),
            ends: carrier.ends()?,
            written: written.lines,
            done: 0,
        };
        results.take_up(past.mark.lines).await?;
        let shared_by_feed = Arc::clone(&shared);
        let feed = Feed { carrier, shared: shared_by_feed, calls, order, journal, input: Some(input), first, writing };
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
