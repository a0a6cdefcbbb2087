//! Writing a batch's results as its calls end: in the order of the input, or in that of the ends.
//!
//! Of what has ended only numbers are held; outcomes are read from the store when it is their turn.

use std::sync::Arc;
use std::time::Duration;

use farcall_core::call::State;
use farcall_core::id::CallId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::BatchError;
use super::journal::{Exception, Order};
use super::line_ids::LineIds;
use super::output::{LineSet, Output};
use super::result;
use super::shared::{Lines, Shared};
use super::tally::REJECTED;
use crate::handle::Handle;

/// Results written at one go.
const RESULTS_MAX: usize = 256;
/// Bytes of documents and answers read at one go, unless a single call has more.
const RESULT_BYTES_MAX: usize = 8 << 20;
/// Lines looked up at one go.
const LOOK_UP_MAX: usize = 1_000;
/// How often the calls of others are asked whether they have ended.
const ALIAS_INTERVAL: Duration = Duration::from_millis(100);

/// Whoever writes.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) handle: Handle,
    pub(super) shared: Arc<Shared>,
    pub(super) ids: LineIds,
    pub(super) order: Order,
    /// Nothing while it is written to.
    pub(super) output: Option<Output>,
    /// Calls that have ended. Closed when the engine is gone.
    pub(super) ends: broadcast::Receiver<CallId>,
    /// What earlier processes wrote.
    pub(super) written: LineSet,
    /// In the order of the input: the last line that is done with.
    pub(super) done: u32,
}

/// What is to be written of a line.
enum Item {
    Exception(Exception),
    Call(CallId),
}

/// What follows.
enum Step {
    Write(Vec<(u32, Item)>),
    Wait,
    Done,
}

impl Results {
    /// Takes up lines that an earlier process submitted, all up to this one.
    pub(super) async fn take_up(&mut self, submitted: u32) -> Result<(), BatchError> {
        let mut next = 1;
        while next <= submitted {
            let end = next.saturating_add(LOOK_UP_MAX as u32 - 1).min(submitted);
            let left: Vec<u32> = {
                let lines = self.shared.lock();
                let is_left = |line: &u32| !self.written.contains(*line) && !lines.exceptions.contains_key(line);
                (next..=end).filter(is_left).collect()
            };
            self.look_up(&left).await?;
            next = end.saturating_add(1);
        }
        if self.order == Order::Completion {
            let mut lines = self.shared.lock();
            let exceptions: Vec<u32> = lines.exceptions.keys().copied().collect();
            lines.ready.extend(exceptions);
        }
        Ok(())
    }

    /// Writes until all is written, or the engine is gone; gives the output back.
    pub(super) async fn run(mut self) -> Result<Output, BatchError> {
        let mut is_gone = false;
        loop {
            match self.next_step() {
                Step::Write(items) => self.write(items).await?,
                Step::Done => break,
                Step::Wait if is_gone => break,
                Step::Wait => is_gone = self.wait().await?,
            }
        }
        self.output.ok_or(BatchError::Interrupted)
    }

    fn next_step(&mut self) -> Step {
        let mut lines = self.shared.lock();
        let items = match self.order {
            Order::Input => in_order(&mut lines, &mut self.done, &self.written, self.ids),
            Order::Completion => as_completed(&mut lines, self.ids),
        };
        if !items.is_empty() {
            Step::Write(items)
        } else if lines.is_read && lines.live.is_empty() && lines.ready.is_empty() {
            Step::Done
        } else {
            Step::Wait
        }
    }

    /// Until there may be something to write; true when the engine is gone.
    async fn wait(&mut self) -> Result<bool, BatchError> {
        let has_aliases = !self.shared.lock().aliases.is_empty();
        let end = tokio::select! {
            end = self.ends.recv() => end,
            () = self.shared.to_write.notified() => return Ok(false),
            () = tokio::time::sleep(ALIAS_INTERVAL), if has_aliases => return self.look_at_aliases().await.map(|()| false),
        };
        let mut ended = Vec::new();
        let mut next = end.map_err(|error| match error {
            RecvError::Closed => TryRecvError::Closed,
            RecvError::Lagged(count) => TryRecvError::Lagged(count),
        });
        loop {
            match next {
                Ok(call) => ended.extend(self.ids.line(call)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                Err(TryRecvError::Lagged(_)) => {
                    // Of those that are only just being submitted the store need not know.
                    let live: Vec<u32> = {
                        let lines = self.shared.lock();
                        lines.live.range(..=lines.submitted).copied().collect()
                    };
                    self.look_up(&live).await?;
                }
            }
            next = self.ends.try_recv();
        }
        let mut lines = self.shared.lock();
        for line in ended {
            lines.end(line, self.order);
        }
        drop(lines);
        self.shared.room.notify_one();
        Ok(matches!(next, Err(TryRecvError::Closed)))
    }

    /// Asks the store where these lines stand.
    async fn look_up(&self, left: &[u32]) -> Result<(), BatchError> {
        for some in left.chunks(LOOK_UP_MAX) {
            let states = self.handle.states(some.iter().map(|&line| self.ids.id(line)).collect()).await?;
            let mut lines = self.shared.lock();
            for (&line, state) in some.iter().zip(states) {
                lines.live.insert(line);
                // What is not stored any more has ended, too.
                if state.is_none_or(State::is_end) && !lines.aliases.contains_key(&line) {
                    lines.end(line, self.order);
                }
            }
        }
        Ok(())
    }

    async fn look_at_aliases(&self) -> Result<(), BatchError> {
        let (waiting, ids): (Vec<u32>, Vec<CallId>) = {
            let lines = self.shared.lock();
            lines.aliases.iter().filter(|(line, _)| lines.live.contains(line)).take(LOOK_UP_MAX).unzip()
        };
        let states = self.handle.states(ids).await?;
        let mut lines = self.shared.lock();
        for (line, _) in waiting.into_iter().zip(states).filter(|(_, state)| state.is_none_or(State::is_end)) {
            lines.end(line, self.order);
        }
        Ok(())
    }

    async fn write(&mut self, items: Vec<(u32, Item)>) -> Result<(), BatchError> {
        let ids: Vec<CallId> = items.iter().filter_map(|(_, item)| item.call()).collect();
        let mut outcomes = self.handle.outcomes(ids, RESULT_BYTES_MAX).await?.into_iter();
        let (mut text, mut states) = (Vec::new(), Vec::new());
        let mut items = items.into_iter();
        for (line, item) in items.by_ref() {
            let call = match item {
                Item::Exception(Exception::Rejected(result)) => {
                    text.extend_from_slice(result.get().as_bytes());
                    text.push(b'\n');
                    states.push(REJECTED);
                    continue;
                }
                Item::Exception(Exception::Blank | Exception::Copy(_)) => continue,
                Item::Call(call) => call,
            };
            match outcomes.next() {
                Some(Some(outcome)) => {
                    text.extend(result::of_call(line, &outcome));
                    states.push(outcome.call.progress.state.as_str());
                }
                Some(None) => {
                    text.extend_from_slice(result::of_lost(line, call).get().as_bytes());
                    text.push(b'\n');
                    states.push(State::Unknown.as_str());
                }
                // There was no room for it any more: it is first the next time.
                None => {
                    self.put_back(std::iter::once((line, Item::Call(call))).chain(items));
                    break;
                }
            }
        }
        self.output = Some(write(self.output.take(), text).await?);
        let mut lines = self.shared.lock();
        states.into_iter().for_each(|state| lines.tally.add(state));
        drop(lines);
        self.shared.room.notify_one();
        Ok(())
    }

    fn put_back(&mut self, items: impl Iterator<Item = (u32, Item)>) {
        let mut lines = self.shared.lock();
        let items: Vec<(u32, Item)> = items.collect();
        if let (Order::Input, Some((first, _))) = (self.order, items.first()) {
            self.done = first - 1;
        }
        for (line, item) in items.into_iter().rev() {
            match item {
                Item::Exception(exception) => drop(lines.exceptions.insert(line, exception)),
                Item::Call(call) if call != self.ids.id(line) => drop(lines.aliases.insert(line, call)),
                Item::Call(_) => {}
            }
            if self.order == Order::Completion {
                lines.ready.push_front(line);
            }
        }
    }
}

impl Item {
    /// What is to be written of a line that has ended or is none.
    fn of(lines: &mut Lines, line: u32, ids: LineIds) -> Self {
        match lines.exceptions.remove(&line) {
            Some(exception) => Self::Exception(exception),
            None => Self::Call(lines.aliases.remove(&line).unwrap_or_else(|| ids.id(line))),
        }
    }

    const fn call(&self) -> Option<CallId> {
        match self {
            Self::Call(call) => Some(*call),
            Self::Exception(_) => None,
        }
    }
}

/// The lines after the last that is done with, up to the first that has not ended.
fn in_order(lines: &mut Lines, done: &mut u32, written: &LineSet, ids: LineIds) -> Vec<(u32, Item)> {
    let mut items = Vec::new();
    while items.len() < RESULTS_MAX && *done < lines.submitted && !lines.live.contains(&(*done + 1)) {
        *done += 1;
        if !written.contains(*done) {
            items.push((*done, Item::of(lines, *done, ids)));
        }
    }
    items
}

fn as_completed(lines: &mut Lines, ids: LineIds) -> Vec<(u32, Item)> {
    let count = lines.ready.len().min(RESULTS_MAX);
    let ready: Vec<u32> = lines.ready.drain(..count).collect();
    ready.into_iter().map(|line| (line, Item::of(lines, line, ids))).collect()
}

/// Writes on a thread of its own: a pipe may be full for long.
async fn write(output: Option<Output>, text: Vec<u8>) -> Result<Output, BatchError> {
    let mut output = output.ok_or(BatchError::Interrupted)?;
    if text.is_empty() {
        return Ok(output);
    }
    let writing = tokio::task::spawn_blocking(move || output.write(&text).map(|()| output));
    writing.await.map_err(|_| BatchError::Interrupted)?.map_err(BatchError::Output)
}
