//! The client of a farcall server: one HTTP/1.1 connection to a directory's socket or to a URL, kept while it lives.
//!
//! It sends a request once. Only what certainly was not sent, only reads, or has an idempotency key is sent again when a
//! connection turns out to be closed. What answers mean for the program's exit is told by `answer`.

mod answer;
mod connect;
mod request;
mod stream;
mod target;

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use tokio::time::timeout;

pub(crate) use answer::Answer;
pub(crate) use request::Request;
pub(crate) use stream::Stream;
pub(crate) use target::Target;

use crate::exit::{Exit, Failure};
use crate::signals::Signals;
use answer::{ReadError, TooLarge};
use connect::Open;

/// How long a server may take to be connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may be silent while an answer is awaited, beside what the request itself asks it to wait.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A server, and the connection to it.
#[derive(Debug)]
pub(crate) struct Client {
    target: Target,
    kept: Option<Open>,
}

/// Why there is no answer.
#[derive(Debug)]
enum SendError {
    /// Nothing of the request can have arrived.
    NotSent(anyhow::Error),
    /// It may have arrived.
    NoAnswer(anyhow::Error),
    TooLarge(TooLarge),
}

impl Client {
    pub(crate) const fn new(target: Target) -> Self {
        Self { target, kept: None }
    }

    /// Sends a request; the answer is a success.
    ///
    /// # Errors
    /// When there is no answer (exit code 6), or it is none of success: what the server says, with the exit code for it.
    pub(crate) async fn ask(&mut self, request: Request) -> Result<Answer, Failure> {
        let answer = self.send(&request).await?;
        answer.success(&request, &self.target)
    }

    /// Sends a request; the answer is whatever the server says.
    ///
    /// # Errors
    /// When there is no answer (exit code 6).
    pub(crate) async fn send(&mut self, request: &Request) -> Result<Answer, Failure> {
        if let Some(open) = self.kept.take() {
            match self.send_on(open, request).await {
                Ok(answer) => return Ok(answer),
                Err(SendError::NotSent(_)) => {}
                Err(SendError::NoAnswer(_)) if request.is_repeatable() => {}
                Err(error) => return Err(self.failure(error, request)),
            }
        }
        match self.send_anew(request).await {
            // A server that was restarted meanwhile may know of it.
            Err(SendError::NoAnswer(_)) if request.has_key() => self.send_anew(request).await,
            answer => answer,
        }
        .map_err(|error| self.failure(error, request))
    }

    /// On a connection of its own.
    async fn send_anew(&mut self, request: &Request) -> Result<Answer, SendError> {
        let open = match timeout(CONNECT_TIMEOUT, connect::open(&self.target)).await {
            Ok(open) => open.map_err(SendError::NotSent)?,
            Err(_) => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                return Err(SendError::NotSent(anyhow::anyhow!("no connection within {seconds} s")));
            }
        };
        self.send_on(open, request).await
    }

    async fn send_on(&mut self, mut open: Open, request: &Request) -> Result<Answer, SendError> {
        let closed = |_| SendError::NotSent(anyhow::anyhow!("it closed the connection"));
        open.sender.ready().await.map_err(closed)?;
        let silence = SILENCE_MAX + request.patience;
        let silent = || SendError::NoAnswer(anyhow::anyhow!("no answer for {} s", silence.as_secs()));
        let message = request.message(&self.target);
        let response = timeout(silence, open.sender.try_send_request(message)).await.map_err(|_| silent())?;
        let response = response.map_err(|mut error| {
            let was_sent = error.take_message().is_none();
            let error = anyhow::Error::new(error.into_error());
            if was_sent { SendError::NoAnswer(error) } else { SendError::NotSent(error) }
        })?;
        let answer = Answer::read(response, silence).await.map_err(|error| match error {
            ReadError::Silent => silent(),
            ReadError::Broken(error) => SendError::NoAnswer(error.into()),
            ReadError::TooLarge(error) => SendError::TooLarge(error),
        })?;
        self.kept = (!open.sender.is_closed()).then_some(open);
        Ok(answer)
    }

    fn failure(&self, error: SendError, request: &Request) -> Failure {
        let context = format!("{} of {} got no answer from {}", request.method, request.path(), self.target);
        match error {
            SendError::NotSent(error) => self.target.unreachable(error),
            SendError::NoAnswer(error) => Failure::new(Exit::Unreachable, error.context(context)),
            SendError::TooLarge(error) => Failure::new(Exit::Unreachable, anyhow::Error::new(error).context(context)),
        }
    }
}

/// What a request carries.
type Content = Full<Bytes>;

/// Runs a command that talks to a server; Ctrl-C ends it.
///
/// # Errors
/// Those of the work, or when the system has no place for a runtime.
pub(crate) fn block_on(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime").map_err(|error| Failure::new(Exit::Usage, error))?;
    let exit = runtime.block_on(async {
        let mut signals = Signals::catch().map_err(|error| Failure::new(Exit::Usage, error))?;
        tokio::select! {
            done = work => done,
            _ = signals.next() => Ok(Exit::Interrupted),
        }
    });
    // A name that is being looked up is not waited for.
    runtime.shutdown_background();
    exit
}
