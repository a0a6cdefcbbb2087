//! POST `/v1/calls/bulk`: one call per line in, one line per call out, in the order sent.
//!
//! Lines are handed over in batches, and the next batch is read while one becomes durable. What a line comes to is told
//! as soon as it is known; a client that reads nothing before it has sent everything is served, too, as long as the
//! answers it has not read are not too many. Each line is judged by itself; empty lines count and are passed over.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use farcall_core::call::Source;
use farcall_core::id::CallId;
use farcall_engine::document::{self, Routing};
use farcall_engine::trace::TraceContext;
use farcall_engine::{Accepted, SUBMISSIONS_MAX, Submission, SubmitError};
use futures_util::stream::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::accept::{check_media, invalid_key, trace};
use super::{Caller, Face};
use crate::places::Place;
use crate::problem::{Code, Problem};

/// Bulk requests at a time; more are refused with 503.
pub(crate) const BULKS_MAX: usize = 16;
/// A batch is handed over when it has so many bytes or [`SUBMISSIONS_MAX`] lines, or when nothing more comes for so long.
const BATCH_BYTES_MAX: usize = 1 << 20;
const BATCH_WAIT: Duration = Duration::from_millis(5);
/// Answers that a client may leave unread before no more of its lines are read.
const UNREAD_MAX: usize = 1_000_000;

/// Lines read together, with the number of the first.
#[derive(Debug, Default)]
struct Batch {
    first: u32,
    lines: Vec<Bytes>,
    bytes: usize,
}

/// Where lines come from.
struct Lines {
    body: Body,
    buffer: BytesMut,
    /// How far the buffer was looked through for the end of a line.
    searched: usize,
    has_ended: bool,
    next: u32,
    line_bytes_max: usize,
    idle_timeout: Duration,
}

/// What a line came to: an id, or why not.
type Told = Result<CallId, Box<(u32, Problem)>>;

/// The answer's lines as they come; dropping it ends the reading.
struct Answers {
    told: mpsc::UnboundedReceiver<Vec<Told>>,
    unread: Arc<Semaphore>,
    reading: JoinHandle<()>,
}

pub(super) async fn accept(State(face): State<Arc<Face>>, request: Request<Body>) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let is_ndjson = |media_type: &str| {
        matches!(media_type, "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/json")
    };
    check_media(&parts.headers, is_ndjson, "calls in bulk are sent with `Content-Type: application/x-ndjson`")?;
    if parts.headers.contains_key("idempotency-key") {
        return Err(invalid_key("in bulk each line has its own `idempotency_key`, and the request none"));
    }
    let busy = |quota| Problem::used_up(quota, format!("{BULKS_MAX} bulk requests are served already"));
    let place = face.bulks.take().map_err(busy)?;
    let line_bytes_max = usize::try_from(face.handle.config().server.max_body).unwrap_or(usize::MAX);
    let mut lines = Lines {
        body,
        buffer: BytesMut::new(),
        searched: 0,
        has_ended: false,
        next: 1,
        line_bytes_max,
        idle_timeout: face.bodies.idle_timeout(),
    };
    // Before the answer begins: only then is a client that expects `100 Continue` told to go on, and not a second later.
    let first = lines.batch().await.map_err(|(line, problem)| problem.at_line(line))?;
    let (teller, told) = mpsc::unbounded_channel();
    let unread = Arc::new(Semaphore::new(UNREAD_MAX));
    let (caller, trace) = (Caller::of(&parts), trace(&parts.headers));
    let bulk = Bulk { face, caller, teller, unread: Arc::clone(&unread), trace, _place: place };
    let reading = tokio::spawn(bulk.run(lines, first));
    let content_type = HeaderValue::from_static("application/x-ndjson");
    let body = Body::from_stream(Answers { told, unread, reading });
    Ok((StatusCode::OK, [(CONTENT_TYPE, content_type)], body).into_response())
}

/// One bulk request under way.
struct Bulk {
    face: Arc<Face>,
    caller: Caller,
    teller: mpsc::UnboundedSender<Vec<Told>>,
    unread: Arc<Semaphore>,
    /// That of the request is that of every line.
    trace: Option<Arc<TraceContext>>,
    _place: Place,
}

impl Bulk {
    async fn run(self, mut lines: Lines, first: (Batch, bool)) {
        let mut batch = Ok(first);
        loop {
            let (read, is_last) = match batch {
                Ok(read) => read,
                Err((line, problem)) => return self.tell(vec![Err(Box::new((line, problem)))]),
            };
            let count = u32::try_from(read.lines.len()).unwrap_or(u32::MAX);
            match self.unread.acquire_many(count).await {
                Ok(room) => room.forget(),
                Err(_) => return,
            }
            if is_last {
                return self.tell(self.submit(read).await);
            }
            let submitted = async { self.tell(self.submit(read).await) };
            ((), batch) = tokio::join!(submitted, lines.batch());
        }
    }

    /// Whoever does not listen any more needs nothing.
    fn tell(&self, told: Vec<Told>) {
        let _ = self.teller.send(told);
    }

    async fn submit(&self, batch: Batch) -> Vec<Told> {
        let config = self.face.handle.config();
        let routing = Routing::from(&*config);
        let mut told: Vec<Option<Told>> = Vec::with_capacity(batch.lines.len());
        let (mut submissions, mut places) = (Vec::new(), Vec::new());
        for (line, bytes) in (batch.first..).zip(batch.lines) {
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            match document::parse(&bytes, &routing) {
                Ok(mut document) => {
                    document.trace = self.trace.clone();
                    places.push((line, told.len()));
                    submissions.push(Submission {
                        document: Box::new(document),
                        bytes,
                        source: Source::Bulk,
                        via: self.caller.via,
                        file: None,
                        scope: self.caller.scope.clone(),
                        retry_of: None,
                        id: None,
                    });
                    told.push(None);
                }
                Err(rejection) => told.push(Some(Err(Box::new((line, Problem::from(rejection)))))),
            }
        }
        let answers = self.face.handle.submit_many(submissions).await;
        for ((line, place), answer) in places.into_iter().zip(answers) {
            let problem = |error: SubmitError| Box::new((line, self.face.advised(error.into())));
            told[place] = Some(answer.map(|Accepted { id, .. }| id).map_err(problem));
        }
        told.into_iter().flatten().collect()
    }
}

impl Lines {
    /// The next lines, and whether they are the last. An error ends it all, at a line.
    async fn batch(&mut self) -> Result<(Batch, bool), (u32, Problem)> {
        let mut batch = Batch { first: self.next, ..Batch::default() };
        loop {
            loop {
                let line = match self.line() {
                    // What came before it is calls all the same; the next batch begins with it.
                    Err(_) if !batch.lines.is_empty() => return Ok((batch, false)),
                    line => line?,
                };
                let Some(line) = line else { break };
                batch.bytes += line.len();
                batch.lines.push(line);
                if batch.lines.len() >= SUBMISSIONS_MAX || batch.bytes >= BATCH_BYTES_MAX {
                    return Ok((batch, false));
                }
            }
            if self.has_ended {
                return Ok((batch, true));
            }
            let wait = if batch.lines.is_empty() { self.idle_timeout } else { BATCH_WAIT };
            match timeout(wait, self.body.frame()).await {
                Err(_) if batch.lines.is_empty() => {
                    let detail = "the next part of the body did not come in time; all lines before this one were read";
                    return Err((self.next, Problem::new(Code::RequestTimeout, detail)));
                }
                Err(_) => return Ok((batch, false)),
                Ok(None) => self.has_ended = true,
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                // What came before is calls all the same; the next batch will end it.
                Ok(Some(Err(_))) if !batch.lines.is_empty() => return Ok((batch, false)),
                Ok(Some(Err(_))) => {
                    let detail = "the body broke off or is badly framed; all lines before this one were read";
                    return Err((self.next, Problem::new(Code::MalformedRequest, detail)));
                }
            }
        }
    }

    /// The next whole line, without its end.
    fn line(&mut self) -> Result<Option<Bytes>, (u32, Problem)> {
        let end = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n').map(|at| self.searched + at);
        let length = end.unwrap_or(self.buffer.len());
        if length > self.line_bytes_max {
            let detail = format!("the line is larger than `server.max_body`, which is {} bytes", self.line_bytes_max);
            return Err((self.next, Problem::new(Code::BodyTooLarge, detail)));
        }
        let line = match end {
            Some(end) => {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                line
            }
            None if self.has_ended && !self.buffer.is_empty() => self.buffer.split(),
            None => {
                self.searched = self.buffer.len();
                return Ok(None);
            }
        };
        self.searched = 0;
        self.next = self.next.saturating_add(1);
        Ok(Some(line.freeze()))
    }
}

impl Stream for Answers {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.told.poll_recv(context) {
            Poll::Ready(Some(told)) => {
                self.unread.add_permits(told.len());
                Poll::Ready(Some(Ok(written(&told))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn written(told: &[Told]) -> Bytes {
    let mut text = Vec::with_capacity(told.len() * 52);
    for told in told {
        match told {
            Ok(id) => text.extend_from_slice(format!("{{\"id\":\"{id}\"}}").as_bytes()),
            Err(failed) => text.extend_from_slice(&failed.1.clone().at_line(failed.0).json()),
        }
        text.push(b'\n');
    }
    text.into()
}
