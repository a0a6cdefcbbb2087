//! Submitting a batch's lines, a chunk after the other, each only once.
//!
//! Before a chunk is submitted the journal says which it is, afterwards that it was. So after a crash at most one chunk is
//! in doubt: each of its lines is a call already, or is offered again in a way that cannot make two of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::State;
use farcall_core::id::CallId;

use super::BatchError;
use super::call_ids::CallIds;
use super::carrier::{Answer, Carrier, Offer};
use super::input::{Chunk, Input, Line};
use super::journal::{Exception, Journal, Mark, Order};
use super::result;
use super::shared::Shared;
use crate::clock;
use crate::document::{Rejection, RejectionKind, with_idempotency_key};

/// After lines were refused for now: when to offer them again.
const OFFER_AGAIN_DELAY: Duration = Duration::from_millis(200);
/// How long lines that there is no space for are offered again when nothing else goes on.
const SPACE_PATIENCE: Duration = Duration::from_secs(10);

/// Whoever submits.
#[derive(Debug)]
pub(super) struct Feed<C> {
    pub(super) carrier: Arc<C>,
    pub(super) shared: Arc<Shared>,
    pub(super) calls: Arc<CallIds>,
    pub(super) order: Order,
    pub(super) journal: Journal,
    /// Nothing while it is read from.
    pub(super) input: Option<Input>,
    /// What was read before.
    pub(super) first: Option<First>,
    pub(super) writing: Writing,
}

/// Lines that were read before the batch runs.
#[derive(Debug)]
pub struct First {
    pub chunk: Chunk,
    /// An earlier process may have submitted some of them.
    pub doubt: Option<Doubt>,
}

/// How lines that are in doubt were submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// With the idempotency keys of the batch.
    pub is_keyed: bool,
}

/// What is written into lines before they are offered. The same every time, so that a key goes with the same content.
#[derive(Debug, Clone, Default)]
pub struct Writing {
    /// Of lines that name neither upstream nor URL.
    pub default_upstream: Option<String>,
    /// Each line gets an idempotency key, unless it has one: whoever carries the calls out gives them their ids.
    pub is_keyed: bool,
}

/// A line to be offered.
#[derive(Debug)]
struct Ready {
    line: u32,
    text: Bytes,
    /// What it is a call of may have been there before, and may have ended.
    may_be_older: bool,
}

/// A chunk, judged as far as that needs no configuration.
#[derive(Debug)]
struct Lines {
    offers: Vec<Ready>,
    exceptions: Vec<(u32, Exception)>,
    mark: Mark,
}

/// A line that is a call already, and where that stands, if anybody knows.
type Known = (u32, CallId, Option<State>);

impl<C: Carrier> Feed<C> {
    /// Submits all lines; gives the journal back.
    pub(super) async fn run(mut self) -> Result<Journal, BatchError> {
        if let Some(First { chunk, doubt }) = self.first.take() {
            let is_keyed = self.writing.is_keyed || doubt.is_some_and(|doubt| doubt.is_keyed);
            let mut lines = self.calls_of(chunk, is_keyed);
            lines.offers.iter_mut().for_each(|ready| ready.may_be_older |= is_keyed && doubt.is_some());
            self.submit(lines, is_keyed, doubt).await?;
        }
        while !self.shared.lock().is_read {
            self.shared.wait_for_room().await;
            let chunk = self.read().await?;
            let lines = self.calls_of(chunk, self.writing.is_keyed);
            self.submit(lines, self.writing.is_keyed, None).await?;
        }
        Ok(self.journal)
    }

    /// Blocks a thread of its own: a pipe may have nothing for long.
    async fn read(&mut self) -> Result<Chunk, BatchError> {
        let mut input = self.input.take().ok_or(BatchError::Interrupted)?;
        let reading = tokio::task::spawn_blocking(move || (input.next_chunk(), input));
        let (chunk, input) = reading.await.map_err(|_| BatchError::Interrupted)?;
        self.input = Some(input);
        Ok(chunk?)
    }

    fn calls_of(&self, Chunk { lines, mark }: Chunk, is_keyed: bool) -> Lines {
        let (mut offers, mut exceptions) = (Vec::with_capacity(lines.len()), Vec::new());
        for Line { number, text } in lines {
            match text {
                None => exceptions.push((number, rejected(number, &too_long()))),
                Some(text) if text.trim_ascii().is_empty() => exceptions.push((number, Exception::Blank)),
                Some(text) => {
                    let name = self.writing.default_upstream.as_deref();
                    let text = name.and_then(|name| with_upstream(&text, name)).unwrap_or(text);
                    let keyed = is_keyed.then(|| with_idempotency_key(&text, &self.calls.own().key(number)));
                    // One with a key of its own.
                    let may_be_older = matches!(keyed, Some(None));
                    offers.push(Ready { line: number, text: keyed.flatten().unwrap_or(text), may_be_older });
                }
            }
        }
        Lines { offers, exceptions, mark }
    }

    async fn submit(&mut self, lines: Lines, is_keyed: bool, doubt: Option<Doubt>) -> Result<(), BatchError> {
        let Lines { mut offers, mut exceptions, mark } = lines;
        self.journal.submitting(&mark, is_keyed)?;
        // Before anybody is asked where they stand: one that ends meanwhile is heard of, and not told again.
        self.shared.lock().begin_offer(offers.iter().map(|ready| ready.line));
        if let Some(doubt) = doubt {
            let known = self.known(&offers, doubt).await?;
            let lines: HashSet<u32> = known.iter().map(|(line, ..)| *line).collect();
            offers.retain(|ready| !lines.contains(&ready.line));
            self.take_up(&known);
        }
        let older = self.offer(offers, &mut exceptions).await?;
        self.calls.sync()?;
        self.journal.submitted(exceptions.clone(), mark.clone())?;
        self.has_submitted(exceptions, &mark);
        self.look_at(older).await?;
        self.shared.to_write.notify_one();
        Ok(())
    }

    fn has_submitted(&self, exceptions: Vec<(u32, Exception)>, mark: &Mark) {
        let mut lines = self.shared.lock();
        for (line, exception) in exceptions {
            lines.except(line, exception, self.order);
        }
        (lines.submitted, lines.bytes, lines.is_read) = (mark.lines, mark.bytes, mark.is_end);
        lines.end_offer();
    }

    /// Lines that an earlier process made calls of.
    async fn known(&self, offers: &[Ready], doubt: Doubt) -> Result<Vec<Known>, BatchError> {
        let (mut known, mut asked) = (Vec::new(), Vec::new());
        for &Ready { line, .. } in offers {
            match self.calls.given(line)? {
                Some(id) => known.push((line, id)),
                // Who got keys chose the ids as well.
                None if self.writing.is_keyed && doubt.is_keyed => {}
                None => asked.push((line, self.calls.own().id(line))),
            }
        }
        let count = known.len();
        known.append(&mut asked);
        let states = self.carrier.states(known.iter().map(|(_, id)| *id).collect()).await?;
        let known = known.into_iter().zip(states).enumerate().map(|(index, ((line, id), state))| {
            let is_call = index < count || state.is_some();
            is_call.then_some((line, id, state))
        });
        Ok(known.flatten().collect())
    }

    fn take_up(&self, known: &[Known]) {
        let own = self.calls.own();
        let given = known.iter().filter(|(line, id, _)| own.id(*line) != *id);
        let given: Vec<(u32, CallId)> = given.map(|&(line, id, _)| (line, id)).collect();
        let mut lines = self.shared.lock();
        lines.give(&given, self.order);
        for &(line, id, state) in known {
            // What is known no more has ended, too.
            if state.is_none_or(State::is_end) {
                lines.end(line, id, self.order);
            }
        }
    }

    /// Offers calls until each is taken or rejected; gives those that may have ended before that was heard of.
    async fn offer(
        &self,
        mut lines: Vec<Ready>,
        exceptions: &mut Vec<(u32, Exception)>,
    ) -> Result<Vec<(u32, CallId)>, BatchError> {
        let (mut stuck_since, mut older) = (clock::now().instant, Vec::new());
        while !lines.is_empty() {
            let refusal = self.offer_once(&mut lines, exceptions, &mut older).await?;
            let Some(refusal) = refusal else { continue };
            // While others go on, space may come.
            if self.shared.lock().live.len() > lines.len() {
                stuck_since = clock::now().instant;
            } else if clock::now().instant.since(stuck_since) > SPACE_PATIENCE {
                return Err(BatchError::Refused(refusal));
            }
            tokio::time::sleep(OFFER_AGAIN_DELAY).await;
        }
        Ok(older)
    }

    /// Leaves those that cannot be taken now, and says why.
    async fn offer_once(
        &self,
        lines: &mut Vec<Ready>,
        exceptions: &mut Vec<(u32, Exception)>,
        older: &mut Vec<(u32, CallId)>,
    ) -> Result<Option<Box<dyn std::error::Error + Send + Sync>>, BatchError> {
        let own = self.calls.own();
        let offers = lines.iter().map(|ready| Offer { id: own.id(ready.line), text: ready.text.clone() });
        let answers = self.carrier.offer(offers.collect()).await?;
        let (mut refused, mut refusal, mut given) = (Vec::new(), None, Vec::new());
        for (ready, answer) in lines.drain(..).zip(answers) {
            let line = ready.line;
            match answer {
                Answer::Accepted(id) => {
                    let is_own = id == own.id(line);
                    if !is_own {
                        given.push((line, id));
                    }
                    // Who was to take the batch's ids gave another: that of an earlier call.
                    if ready.may_be_older || (!is_own && !self.writing.is_keyed) {
                        older.push((line, id));
                    }
                }
                Answer::Rejected(rejection) => exceptions.push((line, rejected(line, &rejection))),
                Answer::Refused(why) => {
                    refusal = Some(why);
                    refused.push(ready);
                }
            }
        }
        self.calls.give(&given)?;
        self.shared.lock().give(&given, self.order);
        *lines = refused;
        Ok(refusal)
    }

    /// Asks for calls that may have ended before anybody listened.
    async fn look_at(&self, older: Vec<(u32, CallId)>) -> Result<(), BatchError> {
        if older.is_empty() {
            return Ok(());
        }
        let states = self.carrier.states(older.iter().map(|(_, id)| *id).collect()).await?;
        let mut lines = self.shared.lock();
        for (&(line, id), _) in older.iter().zip(states).filter(|(_, state)| state.is_none_or(State::is_end)) {
            lines.end(line, id, self.order);
        }
        Ok(())
    }
}

fn rejected(line: u32, rejection: &Rejection) -> Exception {
    Exception::Rejected(result::of_rejection(line, rejection))
}

fn too_long() -> Rejection {
    let message = "the line is longer than a call may be (`server.max_body`)".to_owned();
    Rejection { kind: RejectionKind::Invalid, message, key: None, line: None, column: None }
}

/// The call with that upstream, unless it says itself where it goes.
fn with_upstream(text: &Bytes, name: &str) -> Option<Bytes> {
    #[derive(serde::Deserialize)]
    struct Whereto {
        upstream: Option<serde::de::IgnoredAny>,
        url: Option<serde::de::IgnoredAny>,
        base_url: Option<serde::de::IgnoredAny>,
    }
    let Whereto { upstream: None, url: None, base_url: None } = serde_json::from_slice(text).ok()? else { return None };
    let rest = text.trim_ascii_start().strip_prefix(b"{")?;
    let comma = if rest.trim_ascii_start().starts_with(b"}") { "" } else { "," };
    let name = serde_json::Value::from(name);
    Some([format!("{{\"upstream\":{name}{comma}").as_bytes(), rest].concat().into())
}

#[cfg(test)]
mod tests {
    use super::super::carrier::{Ends, News, Told};
    use super::super::journal::Past;
    use super::super::line_ids::LineIds;
    use super::*;

    /// Everything runs while it is asked for, and has ended before the answer is there.
    struct Hasty {
        shared: Arc<Shared>,
        own: LineIds,
    }

    struct Silence;

    impl Ends for Silence {
        async fn next(&mut self) -> News {
            News::Gone
        }
    }

    impl Carrier for Hasty {
        type Ends = Silence;

        fn ends(&self) -> Result<Silence, BatchError> {
            Ok(Silence)
        }

        async fn offer(&self, offers: Vec<Offer>) -> Result<Vec<Answer>, BatchError> {
            Ok(offers.into_iter().map(|offer| Answer::Accepted(offer.id)).collect())
        }

        async fn states(&self, calls: Vec<CallId>) -> Result<Vec<Option<State>>, BatchError> {
            let mut lines = self.shared.lock();
            calls.iter().for_each(|&call| lines.heard(call, self.own, Order::Completion));
            Ok(vec![Some(State::Running); calls.len()])
        }

        async fn outcomes(&self, _: Vec<(u32, CallId)>, _: usize) -> Result<Vec<Option<Told>>, BatchError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn a_call_that_ends_while_its_state_is_asked_for_is_not_waited_for() -> Result<(), Box<dyn std::error::Error>>
    {
        for is_keyed in [false, true] {
            let folder = tempfile::tempdir()?;
            let (own, shared) = (LineIds::of_new_batch(), Arc::new(Shared::default()));
            let calls = CallIds::open(own, &folder.path().join("ids"))?;
            if is_keyed {
                calls.give(&[(1, LineIds::of_new_batch().id(7))])?;
            }
            let (ids, order, mark) = (own, Order::Completion, Mark { lines: 1, is_end: true, ..Mark::default() });
            let (in_doubt, exceptions) = (None, Default::default());
            let past = Past { ids, order, server: None, mark, in_doubt, exceptions, finished: None, written_at: None };
            let line = Line { number: 1, text: Some(Bytes::from_static(b"{}")) };
            let first =
                First { chunk: Chunk { lines: vec![line], mark: past.mark.clone() }, doubt: Some(Doubt { is_keyed }) };
            let feed = Feed {
                carrier: Arc::new(Hasty { shared: Arc::clone(&shared), own }),
                shared: Arc::clone(&shared),
                calls: Arc::new(calls),
                order,
                journal: Journal::begin(&folder.path().join("journal"), &past)?,
                input: None,
                first: Some(first),
                writing: Writing { default_upstream: None, is_keyed },
            };
            feed.run().await?;
            let lines = shared.lock();
            assert!(lines.live.is_empty(), "line 1 is waited for for ever (with keys: {is_keyed})");
            assert_eq!(lines.ready, [1], "with keys: {is_keyed}");
        }
        Ok(())
    }

    #[test]
    fn a_line_that_says_where_it_goes_is_left_alone() {
        let with = |text: &'static str| with_upstream(&Bytes::from_static(text.as_bytes()), "a\"b");
        assert_eq!(with(r#" {"end_point": "/x"}"#).as_deref(), Some(&br#"{"upstream":"a\"b","end_point": "/x"}"#[..]));
        assert_eq!(with("{ }").as_deref(), Some(&br#"{"upstream":"a\"b" }"#[..]));
        for text in [r#"{"url": "x"}"#, r#"{"base_url": 1}"#, r#"{"upstream": "y"}"#, "[]", "{", ""] {
            assert_eq!(with(text), None, "{text}");
        }
    }
}
