//! A server carries a batch out: bulk requests, its event stream, and one GET for each outcome.
//!
//! Every request may be sent again: lines have keys, and everything else only reads. So a server that goes away for a
//! moment is waited for.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::time::Instant;
use farcall_engine::batch::{self, BatchError, Carrier, Offer, Told};
use farcall_engine::clock;
use futures_util::stream::{StreamExt, iter};
use tokio_util::sync::CancellationToken;

use super::bulk;
use super::heard::{self, Heard};
use crate::client::{Answer, Client, Request, Stream, Target};
use crate::exit::{Exit, Failure};
use crate::print::Screen;

/// Calls that are asked for side by side.
const ASKED_AT_ONCE: usize = 8;
/// How long a server that went away is waited for, and how often it is looked for.
const LOST_MAX: Duration = Duration::from_secs(30);
const LOST_PAUSE: Duration = Duration::from_millis(200);

/// A server that has answered.
#[derive(Debug)]
pub(super) struct Server {
    target: Target,
    /// Connections that nobody uses.
    idle: Mutex<Vec<Client>>,
    /// Until somebody listens.
    events: Mutex<Option<Stream>>,
    stop: CancellationToken,
    /// Nothing for a quiet command.
    screen: Option<Screen>,
    /// That it is waited for was told.
    lost: Mutex<Option<Instant>>,
}

/// A failure on its way through those who do not know how the program ends.
#[derive(Debug)]
pub(super) struct Carried(Mutex<Option<Failure>>);

impl Server {
    /// Finds the server there.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub(super) async fn find(target: Target, stop: CancellationToken, screen: Option<Screen>) -> Result<Self, Failure> {
        let events = Mutex::new(Some(heard::open(&target).await?));
        Ok(Self { target, idle: Mutex::default(), events, stop, screen, lost: Mutex::new(None) })
    }

    /// Asks, and goes on asking while the server is away. A refusal that is expected is an answer.
    async fn ask(&self, request: Request, is_expected: fn(&Answer) -> bool) -> Result<Answer, BatchError> {
        let mut lost_since = None;
        loop {
            let idle = lock(&self.idle).pop();
            let mut client = idle.unwrap_or_else(|| Client::new(self.target.clone()));
            let answer = tokio::select! {
                answer = client.send(&request) => answer,
                () = self.stop.cancelled() => return Err(BatchError::Interrupted),
            };
            let told =
                |answer: Answer| if is_expected(&answer) { Ok(answer) } else { answer.success(&request, &self.target) };
            let failure = match answer.and_then(told) {
                Ok(answer) => {
                    lock(&self.idle).push(client);
                    self.is_back();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let now = clock::now().instant;
            let since = *lost_since.get_or_insert(now);
            if failure.exit() != Exit::Unreachable || now.since(since) > LOST_MAX {
                return Err(carried(failure));
            }
            self.is_lost(&failure);
            tokio::select! {
                () = tokio::time::sleep(LOST_PAUSE) => {}
                () = self.stop.cancelled() => return Err(BatchError::Interrupted),
            }
        }
    }

    /// Tells it once, however many ask.
    fn is_lost(&self, failure: &Failure) {
        let mut lost = lock(&self.lost);
        if let (None, Some(screen)) = (*lost, &self.screen) {
            screen.tell(failure.render(false));
            screen.tell("waiting for the server to come back");
        }
        lost.get_or_insert_with(|| clock::now().instant);
    }

    fn is_back(&self) {
        *lock(&self.lost) = None;
    }

    /// What the server says of a call; nothing when it knows it no more.
    async fn call(&self, id: CallId) -> Result<Option<Answer>, BatchError> {
        let request = Request::get(&["v1", "calls", &id.to_string()]);
        let answer = self.ask(request, Answer::is_unknown).await?;
        Ok((!answer.is_unknown()).then_some(answer))
    }

    async fn state(&self, id: CallId) -> Result<Option<State>, BatchError> {
        #[derive(serde::Deserialize)]
        struct Call {
            state: String,
        }
        let Some(answer) = self.call(id).await? else { return Ok(None) };
        let call: Call = answer.document().map_err(carried)?;
        match State::from_word(&call.state) {
            Some(state) => Ok(Some(state)),
            None => Err(carried(not_farcall(&format!("the state `{}`", call.state)))),
        }
    }

    async fn outcome(&self, line: u32, id: CallId) -> Result<Option<Told>, BatchError> {
        let Some(answer) = self.call(id).await? else { return Ok(None) };
        match batch::told(line, &answer.body) {
            Ok(Some(told)) => Ok(Some(told)),
            Ok(None) => Err(carried(not_farcall(&format!("that {id} has ended, and that it has not")))),
            Err(error) => Err(carried(not_farcall(&error.to_string()))),
        }
    }
}

impl Carrier for Server {
    type Ends = Heard;

    fn ends(&self) -> Result<Heard, BatchError> {
        let stream = lock(&self.events).take().ok_or(BatchError::Interrupted)?;
        Ok(Heard::new(self.target.clone(), stream, self.stop.clone()))
    }

    async fn offer(&self, offers: Vec<Offer>) -> Result<Vec<batch::Answer>, BatchError> {
        let request = Request::post(&["v1", "calls", "bulk"]).lines(bulk::body(&offers));
        let answer = self.ask(request, Answer::is_about_a_line).await?;
        Ok(bulk::answers(&answer.body, offers.len()))
    }

    async fn states(&self, calls: Vec<CallId>) -> Result<Vec<Option<State>>, BatchError> {
        let asked = iter(calls).map(|id| self.state(id)).buffered(ASKED_AT_ONCE);
        asked.collect::<Vec<_>>().await.into_iter().collect()
    }

    async fn outcomes(&self, calls: Vec<(u32, CallId)>, bytes_max: usize) -> Result<Vec<Option<Told>>, BatchError> {
        let mut asked = iter(calls).map(|(line, id)| self.outcome(line, id)).buffered(ASKED_AT_ONCE);
        let (mut outcomes, mut bytes) = (Vec::new(), 0);
        while let Some(told) = asked.next().await {
            let told = told?;
            bytes += told.as_ref().map_or(0, |told| told.text.len());
            outcomes.push(told);
            if bytes > bytes_max {
                break;
            }
        }
        Ok(outcomes)
    }
}

/// Why a batch did not come to its end, as the program tells it.
pub(super) fn failure_of(error: BatchError) -> Result<Failure, BatchError> {
    let BatchError::Carrier(carrier) = error else { return Err(error) };
    let failure = carrier.downcast_ref::<Carried>().and_then(|carried| lock(&carried.0).take());
    failure.ok_or(BatchError::Carrier(carrier))
}

fn carried(failure: Failure) -> BatchError {
    BatchError::Carrier(Box::new(Carried(Mutex::new(Some(failure)))))
}

fn not_farcall(said: &str) -> Failure {
    let failure = Failure::new(Exit::Unreachable, anyhow::anyhow!("the server says {said}"));
    failure.with_hint("is it a farcall server, and of this version?")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server does not carry the batch out")
    }
}

impl std::error::Error for Carried {}
