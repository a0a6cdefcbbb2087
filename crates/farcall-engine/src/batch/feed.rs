//! Submitting a batch's lines, a chunk after the other, each only once.
//!
//! Before a chunk is submitted the journal says which it is, afterwards that it was. So after a crash at most one chunk is
//! in doubt, and the store knows of each of its lines whether it was accepted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::{Source, State, Via};
use farcall_core::id::CallId;

use super::BatchError;
use super::input::{Chunk, Input, Line};
use super::journal::{Exception, Journal, Order};
use super::line_ids::LineIds;
use super::result;
use super::shared::Shared;
use crate::clock;
use crate::config::Config;
use crate::document::{self, Document, Rejection, RejectionKind, Routing};
use crate::handle::{Handle, Submission, SubmitError};

/// After the engine refused lines for now: when to offer them again.
const OFFER_AGAIN_DELAY: Duration = Duration::from_millis(200);
/// How long lines that there is no space for are offered again when nothing else goes on.
const SPACE_PATIENCE: Duration = Duration::from_secs(10);

/// Whoever submits.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) handle: Handle,
    pub(super) shared: Arc<Shared>,
    pub(super) ids: LineIds,
    pub(super) order: Order,
    pub(super) journal: Journal,
    /// Nothing while it is read from.
    pub(super) input: Option<Input>,
    /// What an earlier process may have submitted in part.
    pub(super) in_doubt: Option<Chunk>,
    /// Of lines that name neither upstream nor URL.
    pub(super) default_upstream: Option<String>,
}

/// A line, judged.
enum Judged {
    Call(Box<Document>, Bytes),
    Exception(Exception),
}

/// Lines of a chunk, as far as they are to be submitted.
type Calls = Vec<(u32, Bytes, Box<Document>)>;

impl Feed {
    /// Submits all lines; gives the journal back.
    pub(super) async fn run(mut self) -> Result<Journal, BatchError> {
        if let Some(chunk) = self.in_doubt.take() {
            self.submit(chunk, true).await?;
        }
        while !self.shared.lock().is_read {
            self.shared.wait_for_room().await;
            let chunk = self.read().await?;
            self.submit(chunk, false).await?;
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

    async fn submit(&mut self, chunk: Chunk, is_in_doubt: bool) -> Result<(), BatchError> {
        let Chunk { lines, mark } = chunk;
        self.journal.submitting(&mark)?;
        let known = if is_in_doubt { self.known(&lines).await? } else { HashMap::new() };
        let (mut calls, mut exceptions) = self.judge(lines).await?;
        calls.retain(|(line, ..)| !known.contains_key(line));
        exceptions.retain(|(line, _)| !known.contains_key(line));
        {
            let mut lines = self.shared.lock();
            lines.live.extend(calls.iter().map(|(line, ..)| *line).chain(known.keys().copied()));
            for (&line, _) in known.iter().filter(|(_, state)| state.is_end()) {
                lines.end(line, self.order);
            }
        }
        self.offer(calls, &mut exceptions).await?;
        self.journal.submitted(exceptions.clone(), mark.clone())?;
        let mut lines = self.shared.lock();
        for (line, exception) in exceptions {
            match exception {
                Exception::Copy(id) => drop(id.parse().map(|id| lines.aliases.insert(line, id))),
                exception => lines.except(line, exception, self.order),
            }
        }
        (lines.submitted, lines.bytes, lines.is_read) = (mark.lines, mark.bytes, mark.is_end);
        drop(lines);
        self.shared.to_write.notify_one();
        Ok(())
    }

    /// Lines that an earlier process submitted, and where their calls stand.
    async fn known(&self, lines: &[Line]) -> Result<HashMap<u32, State>, BatchError> {
        let numbers: Vec<u32> = lines.iter().map(|line| line.number).collect();
        let states = self.handle.states(numbers.iter().map(|&line| self.ids.id(line)).collect()).await?;
        Ok(numbers.into_iter().zip(states).filter_map(|(line, state)| Some((line, state?))).collect())
    }

    async fn judge(&self, lines: Vec<Line>) -> Result<(Calls, Vec<(u32, Exception)>), BatchError> {
        let (config, default_upstream) = (self.handle.config(), self.default_upstream.clone());
        let judging = tokio::task::spawn_blocking(move || {
            let (mut calls, mut exceptions) = (Vec::new(), Vec::new());
            for line in lines {
                let number = line.number;
                match judge(line, &config, default_upstream.as_deref()) {
                    Judged::Call(document, text) => calls.push((number, text, document)),
                    Judged::Exception(exception) => exceptions.push((number, exception)),
                }
            }
            (calls, exceptions)
        });
        judging.await.map_err(|_| BatchError::Interrupted)
    }

    /// Offers calls until the engine has taken or rejected each.
    async fn offer(&self, mut calls: Calls, exceptions: &mut Vec<(u32, Exception)>) -> Result<(), BatchError> {
        let mut stuck_since = clock::now().instant;
        while !calls.is_empty() {
            let (refused, refusal) = self.offer_once(calls, exceptions).await?;
            calls = self.understood(refused);
            let Some(refusal) = refusal else { continue };
            // While others go on, space may come.
            if self.shared.lock().live.len() > calls.len() {
                stuck_since = clock::now().instant;
            } else if clock::now().instant.since(stuck_since) > SPACE_PATIENCE {
                return Err(BatchError::Refused(refusal));
            }
            tokio::time::sleep(OFFER_AGAIN_DELAY).await;
        }
        Ok(())
    }

    /// Gives back those that the engine cannot take now, and why.
    async fn offer_once(
        &self,
        calls: Calls,
        exceptions: &mut Vec<(u32, Exception)>,
    ) -> Result<(Vec<(u32, Bytes)>, Option<SubmitError>), BatchError> {
        let offered: Vec<(u32, Bytes)> = calls.iter().map(|(line, text, _)| (*line, text.clone())).collect();
        let submissions = calls.into_iter().map(|(line, bytes, document)| self.submission(line, bytes, document));
        let answers = self.handle.submit_many(submissions.collect()).await;
        let (mut refused, mut refusal) = (Vec::new(), None);
        for ((line, text), answer) in offered.into_iter().zip(answers) {
            match answer {
                Ok(accepted) if accepted.id == self.ids.id(line) => {}
                Ok(accepted) => exceptions.push((line, Exception::copy(accepted.id))),
                Err(error @ (SubmitError::Rejected(_) | SubmitError::KeyReused { .. })) => {
                    exceptions.push((line, rejected(line, &error.into())));
                }
                Err(SubmitError::Draining) => return Err(BatchError::Interrupted),
                Err(error) => {
                    refusal = Some(error);
                    refused.push((line, text));
                }
            }
        }
        Ok((refused, refusal))
    }

    fn understood(&self, lines: Vec<(u32, Bytes)>) -> Calls {
        let config = self.handle.config();
        let parsed = lines.into_iter().filter_map(|(line, text)| {
            let document = document::parse(&text, &Routing::from(&*config)).ok()?;
            Some((line, text, Box::new(document)))
        });
        parsed.collect()
    }

    fn submission(&self, line: u32, bytes: Bytes, document: Box<Document>) -> Submission {
        let id = Some(self.ids.id(line));
        let (source, via, scope) = (Source::Batch, Via::User, String::new());
        Submission { document, bytes, source, via, file: None, scope, retry_of: None, id }
    }
}

fn rejected(line: u32, rejection: &Rejection) -> Exception {
    Exception::Rejected(result::of_rejection(line, rejection))
}

fn judge(Line { number, text }: Line, config: &Config, default_upstream: Option<&str>) -> Judged {
    let Some(text) = text else {
        let bytes_max = config.server.max_body;
        let message = format!("the line is longer than {bytes_max} bytes (`server.max_body`)");
        let kind = RejectionKind::Invalid;
        return Judged::Exception(rejected(number, &Rejection { kind, message, key: None, line: None, column: None }));
    };
    if text.trim_ascii().is_empty() {
        return Judged::Exception(Exception::Blank);
    }
    let text = default_upstream.and_then(|name| with_upstream(&text, name)).unwrap_or(text);
    match document::parse(&text, &Routing::from(config)) {
        Ok(document) => Judged::Call(Box::new(document), text),
        Err(rejection) => Judged::Exception(rejected(number, &rejection)),
    }
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

/// The id of a call that a line is a copy of.
pub(super) fn original(exception: &Exception) -> Option<CallId> {
    match exception {
        Exception::Copy(id) => id.parse().ok(),
        Exception::Blank | Exception::Rejected(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
