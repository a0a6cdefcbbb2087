//! Operations: cancelling or retrying all calls that a filter names, beside everything else.
//!
//! First it is found out which calls these are, then each is treated by itself, a bounded number at a time. An operation
//! lives in memory: when farcall stops it is over, what it has done is durable, and the same operation finds what is left.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::time::{Instant, Timestamp};
use farcall_core::turnover::Turnover;
use farcall_store::port::{CallFilter, ReadError};
use futures_util::future::join_all;
use tokio_util::task::TaskTracker;

use crate::cause::chain;
use crate::clock;
use crate::handle::Handle;
use crate::listing::{Cursor, PAGE_MAX};
use crate::steer::{CancelError, RetryAs, RetryError};

/// Calls that are treated at once.
const TOGETHER: usize = 256;
/// Operations that may go on at a time.
pub const RUNNING_MAX: usize = 16;
/// Operations that are remembered.
const KEPT_MAX: usize = 1_000;
/// Calls that one operation may name.
pub const CALLS_MAX: usize = 1_000_000;

/// What is done to each call.
#[derive(Debug, Clone)]
pub enum Action {
    Cancel,
    /// Each is made again as a new call.
    Retry(RetryAs),
}

/// An operation to be begun.
#[derive(Debug, Clone)]
pub struct Spec {
    pub action: Action,
    /// Without states it names those that the action makes sense for: calls that have not ended, to cancel; those that
    /// ended badly, to retry.
    pub filter: CallFilter,
    /// Only find out how many calls it names.
    pub dry_run: bool,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Running,
    Done,
    Failed,
}

impl Phase {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// An operation as it stands.
#[derive(Debug, Clone)]
pub struct Operation {
    pub id: CallId,
    pub is_cancel: bool,
    pub dry_run: bool,
    pub phase: Phase,
    /// Calls that it names; nothing until that is known.
    pub total: Option<u64>,
    /// Calls that were treated, whatever came of it.
    pub done: u64,
    /// Of those: had nothing to be done about any more.
    pub skipped: u64,
    /// Of those: could not be treated.
    pub errors: u64,
    /// What went wrong last.
    pub error: Option<String>,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// Too many operations go on already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{RUNNING_MAX} operations go on already")]
pub struct TooMany {
    /// How soon one of them is likely to be over.
    pub free_in: Duration,
}

/// All operations since the start, as far as they are remembered.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    known: Mutex<Known>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Known {
    operations: VecDeque<Operation>,
    turnover: Turnover,
}

/// What came of one call.
enum Came {
    Treated,
    Skipped,
    Wrong(String),
}

impl Operations {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, now: Instant, operation: Operation) -> Result<(), TooMany> {
        let Known { operations, turnover } = &mut *self.lock();
        let is_running = |operation: &&Operation| operation.phase == Phase::Running;
        if operations.iter().filter(is_running).count() >= RUNNING_MAX {
            return Err(TooMany { free_in: turnover.next_free_in(now) });
        }
        if operations.len() >= KEPT_MAX
            && let Some(oldest) = operations.iter().position(|operation| operation.phase != Phase::Running)
        {
            operations.remove(oldest);
        }
        operations.push_back(operation);
        turnover.taken(now);
        Ok(())
    }

    fn change<T>(&self, id: CallId, change: impl FnOnce(&mut Operation) -> T) -> Option<T> {
        self.lock().operations.iter_mut().find(|operation| operation.id == id).map(change)
    }

    fn note(&self, id: CallId, came: Vec<Came>) {
        self.change(id, |operation| {
            for came in came {
                operation.done += 1;
                match came {
                    Came::Treated => {}
                    Came::Skipped => operation.skipped += 1,
                    Came::Wrong(error) => {
                        operation.errors += 1;
                        operation.error = Some(error);
                    }
                }
            }
        });
    }

    /// Waits for those that go on, which farcall's stop ends.
    pub(crate) async fn join(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn finish(&self, id: CallId, begun: Instant, phase: Phase, error: Option<String>) {
        let now = clock::now();
        self.change(id, |operation| {
            operation.phase = phase;
            operation.error = error.or_else(|| operation.error.take());
            operation.finished_at = Some(now.timestamp);
        });
        self.lock().turnover.given_back(now.instant, now.instant.since(begun));
    }
}

impl Handle {
    /// Begins an operation, which goes on by itself. Its id is none of a call.
    ///
    /// # Errors
    /// When too many go on already.
    pub fn begin_operation(&self, spec: Spec) -> Result<Operation, TooMany> {
        let now = clock::now();
        let operation = Operation {
            id: CallId::new(now.timestamp, fastrand::u128(..)),
            is_cancel: matches!(spec.action, Action::Cancel),
            dry_run: spec.dry_run,
            phase: Phase::Running,
            total: None,
            done: 0,
            skipped: 0,
            errors: 0,
            error: None,
            started_at: now.timestamp,
            finished_at: None,
        };
        self.operations.add(now.instant, operation.clone())?;
        let (handle, id) = (self.clone(), operation.id);
        self.operations.tasks.spawn(async move {
            match carry_out(&handle, id, spec).await {
                Ok(()) => handle.operations.finish(id, now.instant, Phase::Done, None),
                Err(error) => {
                    tracing::error!(operation = %id, error, "an operation could not be carried out");
                    handle.operations.finish(id, now.instant, Phase::Failed, Some(error));
                }
            }
        });
        Ok(operation)
    }

    /// An operation of this process, as it stands.
    pub fn operation(&self, id: CallId) -> Option<Operation> {
        self.operations.change(id, |operation| operation.clone())
    }
}

async fn carry_out(handle: &Handle, id: CallId, spec: Spec) -> Result<(), String> {
    let filter = with_states(spec.filter, &spec.action);
    let calls = named(handle, &filter).await?;
    let total = u64::try_from(calls.len()).unwrap_or(u64::MAX);
    handle.operations.change(id, |operation| operation.total = Some(total));
    if spec.dry_run {
        return Ok(());
    }
    for together in calls.chunks(TOGETHER) {
        let came = join_all(together.iter().map(|&call| treat(handle, call, &spec.action))).await;
        handle.operations.note(id, came);
        if handle.snapshot().is_draining {
            return Err("farcall is stopping".to_owned());
        }
    }
    Ok(())
}

/// The calls that a filter names, oldest first.
async fn named(handle: &Handle, filter: &CallFilter) -> Result<Vec<CallId>, String> {
    let (mut calls, mut from): (Vec<CallId>, Option<Cursor>) = (Vec::new(), None);
    loop {
        let (ids, next) = handle.ids(filter, from, PAGE_MAX).await.map_err(|error: ReadError| chain(&error))?;
        calls.extend(ids);
        if calls.len() > CALLS_MAX {
            return Err(format!("it names more than {CALLS_MAX} calls; narrow it with `since` and `until`"));
        }
        from = next;
        if from.is_none() {
            calls.reverse();
            return Ok(calls);
        }
    }
}

fn with_states(filter: CallFilter, action: &Action) -> CallFilter {
    if !filter.states.is_empty() {
        return filter;
    }
    let states = State::ALL.iter().copied().filter(|state| match action {
        Action::Cancel => !state.is_end(),
        Action::Retry(_) => state.is_end() && !matches!(state, State::Succeeded | State::Cancelled),
    });
    CallFilter { states: states.collect(), ..filter }
}

async fn treat(handle: &Handle, call: CallId, action: &Action) -> Came {
    match action {
        Action::Cancel => match handle.cancel(call).await {
            Ok(_) => Came::Treated,
            Err(CancelError::AlreadyEnded { .. } | CancelError::Unknown) => Came::Skipped,
            Err(error @ (CancelError::Busy | CancelError::Stopping | CancelError::Read(_))) => {
                Came::Wrong(error.to_string())
            }
        },
        Action::Retry(retry_as) => match handle.retry(call, retry_as.clone()).await {
            Ok(_) => Came::Treated,
            Err(RetryError::NotEnded { .. } | RetryError::Unknown | RetryError::Callback) => Came::Skipped,
            Err(error @ (RetryError::Damaged | RetryError::Submit(_) | RetryError::Read(_))) => {
                Came::Wrong(error.to_string())
            }
        },
    }
}
