//! Beginning a batch, or finding the one that was begun: what there is to do, before anything is sent.
//!
//! Whatever contradicts what was begun is an error here, and changes nothing.

use std::time::{Duration, SystemTime};

use anyhow::anyhow;
use farcall_core::time::Timestamp;
use farcall_engine::batch::{
    Batch, CallIds, Chunk, Doubt, First, Input, InputError, Journal, JournalError, LineIds, Order, Output, OutputError,
    Past, Tally, Writing, Written, mend,
};
use farcall_engine::clock;

use super::place::{Place, Sink, conflict};
use super::terms::FirstOrigin;
use crate::args::batch::BatchArgs;
use crate::exit::{Exit, Failure};

/// How long a server knows keys for certain: as long as after the end of a call.
const KEYS_KEPT: Duration = Duration::from_secs(72 * 3600);

/// What there is to do.
pub(super) enum Begun {
    /// Nothing: every result has been written.
    Finished(Tally),
    Batch(Box<Batch>),
}

/// Who carries a batch out, and what that means for its lines.
pub(super) struct Terms<'a> {
    /// The longest line that is read, in bytes.
    pub(super) line_bytes_max: u64,
    /// The server, unless that is a matter of the directory.
    pub(super) server: Option<String>,
    /// Lines get keys.
    pub(super) is_keyed: bool,
    /// Where lines go that do not say it.
    pub(super) default_upstream: Box<dyn FnOnce(FirstOrigin) -> Result<Option<String>, Failure> + 'a>,
}

/// Finds the batch that was begun here, or begins one.
///
/// # Errors
/// With exit code 4 when input or output are not those of the batch that was begun; nothing has changed then.
pub(super) fn begin(args: &BatchArgs, place: &Place, terms: Terms<'_>) -> Result<Begun, Failure> {
    let order = if args.as_completed { Order::Completion } else { Order::Input };
    let (output, written) = output(place)?;
    let mut input = Input::new(place.reader()?, terms.line_bytes_max);
    let mut origin = FirstOrigin::new(args);
    let begun = Journal::open(&place.journal, |line| !written.lines.contains(line)).map_err(journal_failure)?;
    let (begun, first) = match begun {
        Some((journal, past)) => {
            same_terms(&past, order, terms.server.as_deref())?;
            let first = go_on(&past, &mut input, &mut origin)?;
            if let (Some(tally), Sink::File(_)) = (&past.finished, &place.output) {
                if written.tally.total() != tally.total() {
                    return Err(conflict(anyhow!("the results of this batch, which has ended, are not in the output")));
                }
                return Ok(Begun::Finished(tally.clone()));
            }
            still_known(&past)?;
            (Some((journal, past)), first)
        }
        None => {
            let chunk = input.next_chunk().map_err(input_failure)?;
            chunk.lines.iter().for_each(|line| origin.look(line));
            (None, Some(First { chunk, doubt: None }))
        }
    };
    let default_upstream = (terms.default_upstream)(origin)?;
    let (journal, past) = begun.map_or_else(|| new(place, order, terms.server), Ok)?;
    let calls = CallIds::open(past.ids, &place.ids).map_err(Failure::directory)?;
    let writing = Writing { default_upstream, is_keyed: terms.is_keyed };
    Ok(Begun::Batch(Box::new(Batch { journal, past, calls, input, first, output, written, writing })))
}

fn new(place: &Place, order: Order, server: Option<String>) -> Result<(Journal, Past), Failure> {
    place.make_journal_folder()?;
    place.forget_ids()?;
    let past = Past::none(LineIds::of_new_batch(), order, server);
    Ok((Journal::begin(&place.journal, &past).map_err(journal_failure)?, past))
}

fn same_terms(past: &Past, order: Order, server: Option<&str>) -> Result<(), Failure> {
    if past.order != order {
        let flag = if order == Order::Input { "with" } else { "without" };
        return Err(conflict(anyhow!("this batch was begun {flag} --as-completed")));
    }
    if past.server.as_deref() != server {
        let begun = past.server.as_ref().map_or("without a server".to_owned(), |server| format!("at {server}"));
        return Err(conflict(anyhow!("this batch was begun {begun}")));
    }
    Ok(())
}

/// Lines in doubt are offered again by keys, which servers forget.
fn still_known(past: &Past) -> Result<(), Failure> {
    let Some((mark, Doubt { is_keyed: true })) = &past.in_doubt else { return Ok(()) };
    let written_at = past.written_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let written_at = written_at.and_then(|since| i64::try_from(since.as_micros()).ok()).map(Timestamp::from_micros);
    if written_at.is_some_and(|at| clock::now().timestamp.since(at) < KEYS_KEPT) {
        return Ok(());
    }
    let (first, last) = (past.mark.lines + 1, mark.lines);
    let message = "may have been accepted more than 72 hours ago, and the server may no longer know their keys";
    Err(conflict(anyhow!("lines {first} to {last} {message}")))
}

/// Finds the input unchanged, and stands behind what was submitted of it; gives what is in doubt.
fn go_on(past: &Past, input: &mut Input, origin: &mut FirstOrigin) -> Result<Option<First>, Failure> {
    input.pass_over(&past.mark, |line| origin.look(&line)).map_err(input_failure)?;
    let Some((mark, doubt)) = past.in_doubt.clone() else { return Ok(None) };
    let mut lines = Vec::new();
    let keep = |line| {
        origin.look(&line);
        lines.push(line);
    };
    input.pass_over(&mark, keep).map_err(input_failure)?;
    Ok(Some(First { chunk: Chunk { lines, mark }, doubt: Some(doubt) }))
}

/// Where results go, and what of them is there. A stream is begun anew.
fn output(place: &Place) -> Result<(Output, Written), Failure> {
    let written = match &place.output {
        Sink::Stream(_) => Written::default(),
        Sink::File(file) => {
            let mut file = file.try_clone().map_err(Failure::directory)?;
            mend(&mut file).map_err(output_failure)?
        }
    };
    Ok((place.output.output()?, written))
}

pub(super) fn input_failure(error: InputError) -> Failure {
    match error {
        InputError::Changed { .. } => conflict(error),
        InputError::Read(_) | InputError::TooManyLines => Failure::new(Exit::Usage, error),
    }
}

fn output_failure(error: OutputError) -> Failure {
    match error {
        OutputError::Foreign { .. } => conflict(error),
        OutputError::Io(_) => Failure::directory(error),
    }
}

fn journal_failure(error: JournalError) -> Failure {
    match error {
        JournalError::Damaged { .. } => conflict(error),
        JournalError::Io(_) | JournalError::InUse => Failure::directory(error),
    }
}
