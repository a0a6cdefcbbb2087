//! A batch through a running server: the calls are that server's, and so are their limits.
//!
//! Lines are posted in bulk, each with an idempotency key that follows from the batch, so that whatever was cut off can
//! be said again. The batch itself is the engine's, as for one that is carried out in this process.

mod bulk;
mod heard;
mod server;

use farcall_engine::batch::{Batch, BatchError, Watch};
use tokio_util::sync::CancellationToken;

use super::begin::{Begun, Terms, begin};
use super::place::Place;
use super::report::Report;
use super::{BATCH_AGAIN, own_failure};
use crate::args::batch::BatchArgs;
use crate::client::{Client, Request, Target};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::signals::Signals;
use server::{Server, failure_of};

/// The longest line that is read: what a server takes, it says itself.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// What happened next.
enum Event {
    Draw,
    Stop,
    /// Whether every line has its result.
    Batch(Result<bool, BatchError>),
}

pub(super) async fn execute(
    context: &Context,
    args: &BatchArgs,
    target: Target,
    mut report: Report,
) -> Result<Exit, Failure> {
    context.refuse_settings("a batch that a server carries out")?;
    refuse_policy(args)?;
    let mut signals = Signals::catch().map_err(|error| Failure::new(Exit::Usage, error))?;
    let (stop, screen) = (CancellationToken::new(), (!context.global.quiet).then_some(context.screen));
    let server = Server::find(target.clone(), stop.clone(), screen).await?;
    check_upstream(args, target.clone()).await?;
    let mut place = Place::of(context, args)?;
    if place.is_forgetful(args) {
        report.tell("from stdin to stdout nothing can go on after a kill; name --out or --dir for that");
    }
    if args.restart {
        place.restart_unless_under_way()?;
    }
    let terms = Terms {
        line_bytes_max: LINE_BYTES_MAX,
        server: target.url().map(str::to_owned),
        is_keyed: true,
        default_upstream: Box::new(|_| Ok(args.upstream.clone())),
    };
    let batch = match begin(args, &place, terms)? {
        Begun::Batch(batch) => *batch,
        Begun::Finished(tally) => {
            place.tidy_up()?;
            return Ok(report.finished(&tally, true));
        }
    };
    report.begin(&place, batch.written.tally.total());
    let exit = carry_out(server, batch, (&mut signals, stop), &mut report).await;
    report.clear();
    let exit = exit?;
    if matches!(exit, Exit::Ok | Exit::CallFailed) {
        place.tidy_up()?;
    }
    Ok(exit)
}

/// The policy is the server's.
fn refuse_policy(args: &BatchArgs) -> Result<(), Failure> {
    let flag = if !args.rates.is_empty() {
        "--rate"
    } else if args.concurrency.is_some() {
        "--concurrency"
    } else if args.upstream.as_ref().is_some_and(|upstream| upstream.contains('=')) {
        "--upstream NAME=BASE_URL"
    } else {
        return Ok(());
    };
    let failure =
        Failure::usage(format!("{flag} is for a batch without a server; this one has its own upstreams and limits"));
    Err(failure.with_hint("`farcall upstreams set NAME rate_second=10` sets a limit there"))
}

/// Lines that do not say where they go need an upstream that the server knows by name.
async fn check_upstream(args: &BatchArgs, target: Target) -> Result<(), Failure> {
    #[derive(serde::Deserialize)]
    struct Upstream {
        declared: bool,
    }
    let Some(name) = &args.upstream else { return Ok(()) };
    let unknown =
        || Failure::usage(format!("the server has no upstream `{name}`")).with_hint("`farcall upstreams` lists them");
    let answer = Client::new(target).ask(Request::get(&["v1", "upstreams", name])).await;
    let answer = answer.map_err(|failure| if failure.exit() == Exit::NotFound { unknown() } else { failure })?;
    let upstream: Upstream = answer.document()?;
    if upstream.declared { Ok(()) } else { Err(unknown()) }
}

/// Runs it to its end, or until it is stopped: what the server has taken goes on there.
async fn carry_out(
    server: Server,
    batch: Batch,
    (signals, stop): (&mut Signals, CancellationToken),
    report: &mut Report,
) -> Result<Exit, Failure> {
    let watch = Watch::default();
    let mut running = Box::pin(batch.run(server, stop.clone(), watch.clone()));
    let ended = loop {
        let event = tokio::select! {
            () = report.next_draw() => Event::Draw,
            _ = signals.next() => Event::Stop,
            ended = &mut running => Event::Batch(ended),
        };
        match event {
            Event::Draw => report.draw_with(&watch.standing(), String::new()),
            Event::Stop if stop.is_cancelled() => return Ok(Exit::Interrupted),
            Event::Stop => stop.cancel(),
            Event::Batch(ended) => break ended,
        }
    };
    report.clear();
    match ended {
        Ok(true) => Ok(report.finished(&watch.standing().tally, false)),
        Ok(false) => Ok(report.interrupted(&watch.standing())),
        Err(error) => failure(error, report, &watch),
    }
}

fn failure(error: BatchError, report: &Report, watch: &Watch) -> Result<Exit, Failure> {
    match failure_of(error) {
        Ok(failure) if failure.exit() == Exit::Unreachable => Err(failure.with_hint(BATCH_AGAIN)),
        Ok(failure) => Err(failure),
        Err(BatchError::Refused(error)) => {
            Err(Failure::new(Exit::Unreachable, anyhow::anyhow!("{error}")).with_hint(BATCH_AGAIN))
        }
        Err(error) => own_failure(error, report, watch),
    }
}
