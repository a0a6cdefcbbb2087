//! Writing a batch's results as its calls end: in the order of the input, or in that of the ends.
//!
//! Of what has ended only numbers are held; outcomes are read again when it is their turn.

use std::sync::Arc;

use farcall_core::call::State;
use farcall_core::id::CallId;

use super::BatchError;
use super::call_ids::CallIds;
use super::carrier::{Carrier, Ends, News};
use super::journal::{Exception, Order};
use super::output::{LineSet, Output};
use super::result;
use super::shared::{Lines, Shared};
use super::tally::REJECTED;

/// Results written at one go.
const RESULTS_MAX: usize = 256;
/// Bytes of documents and answers read at one go, unless a single call has more.
const RESULT_BYTES_MAX: usize = 8 << 20;
/// Lines looked up at one go.
const LOOK_UP_MAX: usize = 1_000;

/// Whoever writes.
#[derive(Debug)]
pub(super) struct Results<C: Carrier> {
    pub(super) carrier: Arc<C>,
    pub(super) shared: Arc<Shared>,
    pub(super) calls: Arc<CallIds>,
    pub(super) order: Order,
    /// Nothing while it is written to.
    pub(super) output: Option<Output>,
    pub(super) ends: C::Ends,
    /// What earlier processes wrote.
    pub(super) written: LineSet,
    /// In the order of the input: the last line that is done with.
    pub(super) done: u32,
}

/// What is to be written of a line.
enum Item {
    Exception(Exception),
    Call,
}

/// What follows.
enum Step {
    Write(Vec<(u32, Item)>),
    Look,
    Wait,
    Done,
}

impl<C: Carrier> Results<C> {
    /// Takes up lines that an earlier process submitted, all up to this one.
    pub(super) async fn take_up(&mut self, submitted: u32) -> Result<(), BatchError> {
        let mut next = 1;
        while next <= submitted {
            let end = next.saturating_add(LOOK_UP_MAX as u32 - 1).min(submitted);
            let mut left = Vec::new();
            {
                let mut lines = self.shared.lock();
                for line in (next..=end).filter(|&line| !self.written.contains(line)) {
                    if !lines.exceptions.contains_key(&line) {
                        lines.take_up(line, self.calls.id(line)?, self.calls.own());
                        left.push(line);
                    }
                }
            }
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

    /// Writes until all is written, or nothing more will be heard; gives the output back.
    pub(super) async fn run(mut self) -> Result<Output, BatchError> {
        let mut is_gone = false;
        loop {
            match self.next_step() {
                Step::Write(items) => self.write(items).await?,
                Step::Done => break,
                Step::Look | Step::Wait if is_gone => break,
                Step::Look => {
                    // Of those that are only just being submitted nobody need know.
                    let live: Vec<u32> = {
                        let lines = self.shared.lock();
                        lines.live.range(..=lines.submitted).copied().collect()
                    };
                    self.look_up(&live).await?;
                }
                Step::Wait => is_gone = self.wait().await,
            }
        }
        self.output.ok_or(BatchError::Interrupted)
    }

    fn next_step(&mut self) -> Step {
        let mut lines = self.shared.lock();
        let items = match self.order {
            Order::Input => in_order(&mut lines, &mut self.done, &self.written),
            Order::Completion => as_completed(&mut lines, &self.written),
        };
        if !items.is_empty() {
            Step::Write(items)
        } else if lines.is_read && lines.live.is_empty() && lines.ready.is_empty() {
            Step::Done
        } else if std::mem::take(&mut lines.must_look) {
            Step::Look
        } else {
            Step::Wait
        }
    }

    /// Until there may be something to write; true when nothing more will be heard.
    async fn wait(&mut self) -> bool {
        let news = tokio::select! {
            news = self.ends.next() => news,
            () = self.shared.to_write.notified() => return false,
        };
        let mut lines = self.shared.lock();
        match news {
            News::Ended(calls) => calls.into_iter().for_each(|call| lines.heard(call, self.calls.own(), self.order)),
            News::Missed => lines.missed(),
            News::Gone => return true,
        }
        drop(lines);
        self.shared.room.notify_one();
        false
    }

    /// Asks where these lines stand.
    async fn look_up(&self, left: &[u32]) -> Result<(), BatchError> {
        for some in left.chunks(LOOK_UP_MAX) {
            let calls = some.iter().map(|&line| self.calls.id(line)).collect::<Result<Vec<CallId>, _>>()?;
            let states = self.carrier.states(calls.clone()).await?;
            let mut lines = self.shared.lock();
            for ((&line, call), state) in some.iter().zip(calls).zip(states) {
                // What is not stored any more has ended, too.
                if state.is_none_or(State::is_end) {
                    lines.end(line, call, self.order);
                }
            }
            drop(lines);
            self.shared.room.notify_one();
        }
        Ok(())
    }

    async fn write(&mut self, items: Vec<(u32, Item)>) -> Result<(), BatchError> {
        let lines = items.iter().filter(|(_, item)| matches!(item, Item::Call)).map(|(line, _)| *line);
        let calls = lines.map(|line| Ok((line, self.calls.id(line)?))).collect::<Result<Vec<_>, BatchError>>()?;
        let mut outcomes = self.carrier.outcomes(calls, RESULT_BYTES_MAX).await?.into_iter();
        let (mut text, mut states) = (Vec::new(), Vec::new());
        let mut items = items.into_iter();
        for (line, item) in items.by_ref() {
            match item {
                Item::Exception(Exception::Blank) => {}
                Item::Exception(Exception::Rejected(result)) => {
                    text.extend_from_slice(result.get().as_bytes());
                    text.push(b'\n');
                    states.push(REJECTED);
                }
                Item::Call => match outcomes.next() {
                    Some(Some(told)) => {
                        text.extend(told.text);
                        states.push(told.state.as_str());
                    }
                    Some(None) => {
                        text.extend_from_slice(result::of_lost(line, self.calls.id(line)?).get().as_bytes());
                        text.push(b'\n');
                        states.push(State::Unknown.as_str());
                    }
                    // There was no room for it any more: it is first the next time.
                    None => {
                        self.put_back(std::iter::once((line, Item::Call)).chain(items));
                        break;
                    }
                },
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
            if let Item::Exception(exception) = item {
                lines.exceptions.insert(line, exception);
            }
            if self.order == Order::Completion {
                lines.ready.push_front(line);
            }
        }
    }
}

impl Item {
    /// What is to be written of a line that has ended or is none.
    fn of(lines: &mut Lines, line: u32) -> Self {
        lines.exceptions.remove(&line).map_or(Self::Call, Self::Exception)
    }
}

/// The lines after the last that is done with, up to the first that has not ended.
fn in_order(lines: &mut Lines, done: &mut u32, written: &LineSet) -> Vec<(u32, Item)> {
    let mut items = Vec::new();
    while items.len() < RESULTS_MAX && *done < lines.submitted && !lines.live.contains(&(*done + 1)) {
        *done += 1;
        if !written.contains(*done) {
            items.push((*done, Item::of(lines, *done)));
        }
    }
    items
}

fn as_completed(lines: &mut Lines, written: &LineSet) -> Vec<(u32, Item)> {
    let mut items = Vec::new();
    while items.len() < RESULTS_MAX
        && let Some(line) = lines.ready.pop_front()
    {
        let item = Item::of(lines, line);
        // An earlier process may have written it before its journal said that the line was submitted.
        if !written.contains(line) {
            items.push((line, item));
        }
    }
    items
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_process_wrote_is_not_written_again() {
        let (mut lines, mut written) = (Lines::default(), LineSet::default());
        assert!(written.insert(2));
        lines.ready.extend([3, 2, 1]);
        lines.exceptions.insert(2, Exception::Blank);
        let items: Vec<u32> = as_completed(&mut lines, &written).into_iter().map(|(line, _)| line).collect();
        assert_eq!(items, [3, 1]);
        assert!(lines.ready.is_empty() && lines.exceptions.is_empty());
    }
}
