//! `farcall batch FILE`: one call per line, durable and resumable, one result per line.
//!
//! Here flags become a place, a policy and a stream; the batch itself is the engine's (`farcall_engine::batch`), and a
//! server's where one is named (`through`). Nothing is sent before the input and the output of a batch that was begun are
//! known to be the same.

mod begin;
mod place;
mod report;
mod terms;
mod through;

use std::io;
use std::sync::Arc;

use farcall_engine::batch::{Batch, BatchError, Here, Watch};
use tokio_util::sync::CancellationToken;
use tracing::Level;

use self::begin::{Begun, Terms, begin, input_failure};
use self::place::Place;
use self::report::Report;
use crate::args::batch::BatchArgs;
use crate::client::Target;
use crate::context::Context;
use crate::directory;
use crate::exit::{Exit, Failure};
use crate::print::Output;
use crate::session::{self, Opened, Session};
use crate::signals::Signals;

/// What to do about one that could not go on.
const BATCH_AGAIN: &str = "the same command goes on when that is mended";
/// What to do about a batch that is not the one that was begun.
const RESTART: &str = "--restart forgets it and begins anew; calls that were made are made again";

pub(crate) fn run(context: &Context, args: &BatchArgs) -> Result<Exit, Failure> {
    if matches!(context.global.output, Some(Output::Table | Output::Json)) {
        return Err(Failure::usage("the results of a batch are a line each: --output ndjson, or none"));
    }
    let report = Report::new(context, args);
    // How each call ended is in its result.
    context.start_logging_but(Some(CALLS_ENDED), Level::WARN, report.bars())?;
    match Target::serving(context, &args.server())? {
        Some(target) => session::block_on(through::execute(context, args, target, report)),
        None => session::block_on(execute(context, args, report)),
    }
}

/// What the engine says of calls that end, to whoever sees no results.
const CALLS_ENDED: &str = "farcall_engine::run::announce";

/// What happened next.
enum Event {
    Draw,
    Stop,
    /// Whether every line has its result.
    Batch(Result<bool, BatchError>),
    Engine(Result<(), Failure>),
}

async fn execute(context: &Context, args: &BatchArgs, mut report: Report) -> Result<Exit, Failure> {
    let mut signals = Signals::catch().map_err(|error| Failure::new(Exit::Usage, error))?;
    if let Some(dir) = &args.dir {
        directory::existing(dir)?;
    }
    let mut place = Place::of(context, args)?;
    if place.is_forgetful(args) {
        report.tell("from stdin to stdout nothing can go on after a kill; name --out or --dir for that");
    }
    let mut opened = Opened::open(context, &place.directory)?;
    if args.restart {
        // It is nobody else's, which the lock has told.
        drop(opened);
        place.restart()?;
        opened = Opened::open(context, &place.directory)?;
    }
    let terms = Terms {
        line_bytes_max: opened.config.server.max_body,
        server: None,
        is_keyed: false,
        default_upstream: Box::new(|first| terms::apply(args, Arc::make_mut(&mut opened.config), first)),
    };
    let batch = match begin(args, &place, terms)? {
        Begun::Batch(batch) => *batch,
        Begun::Finished(tally) => {
            drop(opened);
            place.tidy_up()?;
            return Ok(report.finished(&tally, true));
        }
    };
    report.begin(&place, batch.written.tally.total());
    let session = opened.start_without_inbox()?;
    let exit = carry_out(session, batch, &mut signals, &mut report).await;
    report.clear();
    let exit = exit?;
    if matches!(exit, Exit::Ok | Exit::CallFailed) {
        place.tidy_up()?;
    }
    Ok(exit)
}

/// Runs it to its end, or until it is stopped; the engine has ended then.
async fn carry_out(
    mut session: Session,
    batch: Batch,
    signals: &mut Signals,
    report: &mut Report,
) -> Result<Exit, Failure> {
    let (stop, watch) = (CancellationToken::new(), Watch::default());
    let mut running = Box::pin(batch.run(Here(session.handle.clone()), stop.clone(), watch.clone()));
    let (mut has_ended, mut engine_has_ended) = (None, false);
    while has_ended.is_none() || !engine_has_ended {
        let event = tokio::select! {
            () = report.next_draw() => Event::Draw,
            _ = signals.next() => Event::Stop,
            ended = &mut running, if has_ended.is_none() => Event::Batch(ended),
            ended = session.ended(), if !engine_has_ended => Event::Engine(ended),
        };
        match event {
            Event::Draw => report.draw(&session, &watch.standing()).await,
            Event::Stop if stop.is_cancelled() => return Ok(Exit::Interrupted),
            Event::Stop => {
                stop.cancel();
                session.handle.drain().await;
            }
            Event::Batch(ended) => {
                has_ended = Some(ended);
                session.handle.drain().await;
            }
            Event::Engine(ended) => {
                engine_has_ended = true;
                ended?;
            }
        }
    }
    report.clear();
    match has_ended.expect("the loop goes on until it has") {
        Ok(true) => Ok(report.finished(&watch.standing().tally, false)),
        Ok(false) => Ok(report.interrupted(&watch.standing())),
        Err(error) => own_failure(error, report, &watch),
    }
}

fn own_failure(error: BatchError, report: &Report, watch: &Watch) -> Result<Exit, Failure> {
    match error {
        BatchError::Interrupted => Ok(report.interrupted(&watch.standing())),
        // Whoever read has heard enough; the rest can be had by the same command.
        BatchError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(report.interrupted(&watch.standing()))
        }
        BatchError::Input(error) => Err(input_failure(error)),
        BatchError::Output(_)
        | BatchError::Journal(_)
        | BatchError::Store(_)
        | BatchError::Ids(_)
        | BatchError::Refused(_)
        | BatchError::Carrier(_) => Err(Failure::directory(error).with_hint(BATCH_AGAIN)),
    }
}
