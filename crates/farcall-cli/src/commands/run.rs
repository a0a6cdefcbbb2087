//! `farcall run [DIR]`: executes everything that waits, and ends when nothing can still end by itself.
//!
//! Calls of upstreams that are paused are reported and left. When nothing is left but files that there is no space for,
//! it waits for space a little while and then names them and ends with 7. There is no API while it runs; a first Ctrl-C
//! drains, a second stops at once, and what has not ended stays for the next run.

use std::path::Path;
use std::time::Duration;

use farcall_core::call::WaitReason;
use farcall_core::time::Instant;
use farcall_engine::{Overview, Snapshot, clock};
use tracing::Level;

use crate::args::Dir;
use crate::context::Context;
use crate::directory;
use crate::exit::{Exit, Failure};
use crate::print::counted;
use crate::progress::{Progress, Standing, live};
use crate::session::{self, Opened, Session};
use crate::signals::Signals;
use crate::summary::{self, Tally};

/// How often it looks whether all is done.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The bar is drawn so often, and less often when the engine has so many calls that asking takes time.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);
const DRAW_SHARE: u32 = 20;

pub(crate) fn run(context: &Context, dir: &Dir) -> Result<Exit, Failure> {
    let dir = context.directory(dir)?;
    let progress = Progress::new(context);
    context.start_logging(Level::WARN, progress.bars())?;
    session::block_on(execute(context, &dir, progress))
}

/// How long files that there is no space for are waited for, when nothing else is left.
const SPACE_PATIENCE: Duration = Duration::from_secs(10);
/// Files that are named; more are counted.
const NAMED_MAX: usize = 1_000;

/// What happened next.
enum Event {
    Look,
    Stop,
    Ended(Result<(), Failure>),
}

async fn execute(context: &Context, dir: &Path, progress: Progress) -> Result<Exit, Failure> {
    let mut signals = Signals::catch().map_err(|error| Failure::new(Exit::Usage, error))?;
    let mut session = Opened::open(context, dir)?.start()?;
    let mut view = View::new(progress);
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let mut is_interrupted = false;
    let mut is_draining = false;
    loop {
        let event = tokio::select! {
            _ = looks.tick() => Event::Look,
            _ = signals.next() => Event::Stop,
            ended = session.ended() => Event::Ended(ended),
        };
        match event {
            Event::Look if is_draining => view.draw(&session).await,
            Event::Look => {
                view.draw(&session).await;
                if view.is_finished(&session).await || view.gives_up_waiting_for_space(context, &session) {
                    is_draining = true;
                    session.handle.drain().await;
                }
            }
            Event::Stop if is_interrupted => {
                view.progress.clear();
                return Ok(Exit::Interrupted);
            }
            Event::Stop => {
                is_interrupted = true;
                is_draining = true;
                session.handle.drain().await;
            }
            Event::Ended(ended) => {
                view.progress.clear();
                ended?;
                view.refresh(&session).await;
                return Ok(view.report(context, &session, is_interrupted));
            }
        }
    }
}

/// What the engine said last.
struct View {
    progress: Progress,
    overview: Overview,
    next_draw: Option<Instant>,
    /// Since when nothing is left but files that there is no space for.
    starved_since: Option<Instant>,
    /// They were waited for in vain.
    is_starved: bool,
}

impl View {
    fn new(progress: Progress) -> Self {
        Self { progress, overview: Overview::default(), next_draw: None, starved_since: None, is_starved: false }
    }

    async fn draw(&mut self, session: &Session) {
        let begun = clock::now().instant;
        if self.next_draw.is_some_and(|at| begun < at) {
            return;
        }
        self.refresh(session).await;
        let now = clock::now();
        let pause = now.instant.since(begun).saturating_mul(DRAW_SHARE).max(DRAW_INTERVAL);
        self.next_draw = Some(now.instant + pause);
        let (inbox, rejected) = files(session);
        let snapshot = session.handle.snapshot();
        let overview = &self.overview;
        self.progress.show(Standing { overview, snapshot: &snapshot, inbox, rejected, now });
    }

    async fn refresh(&mut self, session: &Session) {
        self.overview = session.handle.overview().await;
    }

    /// Whether nothing can still end by itself. The inbox is asked first: what it has handed over is counted by then.
    async fn is_finished(&mut self, session: &Session) -> bool {
        let is_quiet = session.handle.inbox().is_none_or(|status| status.borrow().is_quiet());
        if !is_quiet || !self.is_idle(&session.handle.snapshot()) {
            return false;
        }
        self.refresh(session).await;
        let snapshot = session.handle.snapshot();
        live(&snapshot) <= self.stuck(&snapshot)
    }

    /// No call can end by itself.
    fn is_idle(&self, snapshot: &Snapshot) -> bool {
        snapshot.unfiled == 0 && snapshot.in_flight == 0 && live(snapshot) <= self.stuck(snapshot)
    }

    /// Whether nothing is left but files that the store has no space for, and has had none for a while.
    fn gives_up_waiting_for_space(&mut self, context: &Context, session: &Session) -> bool {
        let is_refused = session.handle.inbox().is_some_and(|status| status.borrow().is_refused);
        if !is_refused || !self.is_idle(&session.handle.snapshot()) {
            self.starved_since = None;
            return false;
        }
        let now = clock::now().instant;
        let Some(since) = self.starved_since else {
            self.starved_since = Some(now);
            if !context.global.quiet {
                context.screen.tell("nothing is left but files that cannot be stored; waiting for space");
            }
            return false;
        };
        self.is_starved = now.since(since) >= SPACE_PATIENCE;
        self.is_starved
    }

    /// Calls that cannot end by themselves.
    fn stuck(&self, snapshot: &Snapshot) -> u64 {
        self.paused() + snapshot.damaged
    }

    fn paused(&self) -> u64 {
        let paused = self.overview.waiting.iter().filter(|(reason, _)| *reason == WaitReason::Paused);
        paused.map(|(_, count)| count).sum()
    }

    /// Prints what came of it, and says how the program ends.
    fn report(&self, context: &Context, session: &Session, is_interrupted: bool) -> Exit {
        let (_, rejected) = files(session);
        let tally = Tally::of(&self.overview);
        if !context.global.quiet {
            summary::print(&context.screen, &self.overview, context.output());
            self.remarks(session, tally, rejected).iter().for_each(|remark| context.screen.tell(remark));
        }
        if is_interrupted {
            Exit::Interrupted
        } else if self.is_starved {
            Exit::Directory
        } else if tally.failed() > 0 || rejected > 0 || session.handle.snapshot().damaged > 0 {
            Exit::CallFailed
        } else {
            Exit::Ok
        }
    }

    fn remarks(&self, session: &Session, tally: Tally, rejected: u64) -> Vec<String> {
        let mut remarks = Vec::new();
        let snapshot = session.handle.snapshot();
        let left = live(&snapshot);
        if tally.ended() == 0 && left == 0 && rejected == 0 {
            remarks.push(format!("nothing waits in {}", session.directory.display()));
        }
        if rejected > 0 {
            let rejected = counted(rejected, "file");
            remarks.push(format!("{rejected} rejected, see {}", session.directory.join("rejected").display()));
        }
        if self.is_starved {
            remarks.extend(refused_files(session));
        }
        if left > 0 {
            let paused = match self.paused() {
                0 => String::new(),
                paused => format!(", {paused} of them for a paused upstream"),
            };
            remarks.push(format!("{} left for later{paused}", counted(left, "call")));
        }
        if snapshot.damaged > 0 {
            let damaged = counted(snapshot.damaged, "call");
            remarks.push(format!("{damaged} damaged in the store and left alone, see docs/promises.md"));
        }
        remarks
    }
}

/// Why files were left, and which.
fn refused_files(session: &Session) -> Vec<String> {
    let why =
        session.handle.snapshot().store_error.unwrap_or_else(|| "there is less space than store.min_free".to_owned());
    let mut names = directory::call_files(&session.directory);
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMED_MAX);
    let mut remarks =
        vec![format!("{} not taken: {why}", counted(u64::try_from(names.len()).unwrap_or(u64::MAX), "file"))];
    remarks.extend(names.into_iter().take(NAMED_MAX).map(|name| format!("  {name}")));
    if more > 0 {
        remarks.push(format!("  and {more} more"));
    }
    remarks
}

/// Files that wait in the inbox, and those rejected.
fn files(session: &Session) -> (u64, u64) {
    let Some(status) = session.handle.inbox() else { return (0, 0) };
    let status = status.borrow();
    (u64::try_from(status.waiting).unwrap_or(u64::MAX), status.rejected)
}
