//! Beginning a batch, or finding the one that was begun: what there is to do, before anything is sent.
//!
//! Whatever contradicts what was begun is an error here, and changes nothing.

use std::sync::Arc;

use anyhow::anyhow;
use farcall_engine::batch::{
    Batch, Chunk, Input, InputError, Journal, JournalError, LineIds, Order, Output, OutputError, Past, Tally, Written,
    mend,
};

use super::place::{Place, Sink, conflict};
use super::terms::{self, FirstOrigin};
use crate::args::batch::BatchArgs;
use crate::exit::{Exit, Failure};
use crate::session::Opened;

/// What there is to do.
pub(super) enum Begun {
    /// Nothing: every result has been written.
    Finished(Tally),
    Batch(Box<Batch>),
}

/// Finds the batch that was begun here, or begins one; the configuration has its policy then.
///
/// # Errors
/// With exit code 4 when input or output are not those of the batch that was begun; nothing has changed then.
pub(super) fn begin(args: &BatchArgs, place: &Place, opened: &mut Opened) -> Result<Begun, Failure> {
    let order = if args.as_completed { Order::Completion } else { Order::Input };
    let (output, written) = output(place)?;
    let mut input = Input::new(place.reader()?, opened.config.server.max_body);
    let mut first = FirstOrigin::new(args);
    let begun = Journal::open(&place.journal, |line| !written.lines.contains(line)).map_err(journal_failure)?;
    let (begun, in_doubt) = match begun {
        Some((journal, past)) => {
            let in_doubt = go_on(&past, order, &mut input, &mut first)?;
            if let (Some(tally), Sink::File(_)) = (&past.finished, &place.output) {
                if written.tally.total() != tally.total() {
                    return Err(conflict(anyhow!("the results of this batch, which has ended, are not in the output")));
                }
                return Ok(Begun::Finished(tally.clone()));
            }
            (Some((journal, past)), in_doubt)
        }
        None => {
            let chunk = input.next_chunk().map_err(input_failure)?;
            chunk.lines.iter().for_each(|line| first.look(line));
            (None, Some(chunk))
        }
    };
    let default_upstream = terms::apply(args, Arc::make_mut(&mut opened.config), first)?;
    let (journal, past) = begun.map_or_else(|| new(place, order), Ok)?;
    Ok(Begun::Batch(Box::new(Batch { journal, past, input, in_doubt, output, written, default_upstream })))
}

fn new(place: &Place, order: Order) -> Result<(Journal, Past), Failure> {
    place.make_journal_folder()?;
    let past = Past::none(LineIds::of_new_batch(), order);
    Ok((Journal::begin(&place.journal, past.ids, order).map_err(journal_failure)?, past))
}

/// Finds the input unchanged, and stands behind what was submitted of it; gives what is in doubt.
fn go_on(past: &Past, order: Order, input: &mut Input, first: &mut FirstOrigin) -> Result<Option<Chunk>, Failure> {
    if past.order != order {
        let flag = if order == Order::Input { "with" } else { "without" };
        return Err(conflict(anyhow!("this batch was begun {flag} --as-completed")));
    }
    input.pass_over(&past.mark, |line| first.look(&line)).map_err(input_failure)?;
    let Some(mark) = past.in_doubt.clone() else { return Ok(None) };
    let mut lines = Vec::new();
    let keep = |line| {
        first.look(&line);
        lines.push(line);
    };
    input.pass_over(&mark, keep).map_err(input_failure)?;
    Ok(Some(Chunk { lines, mark }))
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
        JournalError::Io(_) => Failure::directory(error),
    }
}
