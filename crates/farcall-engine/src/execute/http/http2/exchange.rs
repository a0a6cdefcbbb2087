//! One request and its answer on one stream. Dropping it before its end resets the stream, and no other.
//!
//! It sends once and says what came of it; whether anything follows from that is not its business.

use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use farcall_core::call::ErrorKind;
use h2::client::ResponseFuture;
use h2::{Error, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, response};
use http_body::Frame;

use super::super::classify::Failure;
use super::super::meter::{INTERIM_ANSWERS_MAX, Meter};
use super::super::outgoing::Outgoing;
use super::super::relay::Frames;
use super::connection::Place;
use super::{classify, request};
use crate::clock;
use crate::config::{Addresses, HeaderCaps};

/// How long an attempt that failed before it went out waits to hear that it never will.
const LAST_WORD: Duration = Duration::from_millis(250);

/// A request that was handed over.
#[derive(Debug)]
pub(in super::super) struct Exchange {
    answer: Incoming,
    /// Dropped last but one, as long as the stream is nobody else's.
    _upload: SendStream<Bytes>,
    stream: u32,
    meter: Arc<Meter>,
    received_before: u64,
    is_over: bool,
    place: Place,
}

/// What is still to come.
enum Incoming {
    Head(ResponseFuture),
    Body(RecvStream),
}

/// Why there is no head.
enum Headless {
    Broken(Error),
    InterimFlood,
}

impl Place {
    /// Hands the request over to the connection's task, which sends it at the next opportunity.
    ///
    /// # Errors
    /// When it cannot be handed over; then nothing is sent.
    pub(in super::super) fn begin(self, outgoing: &Outgoing, meter: &Arc<Meter>) -> Result<Exchange, Failure> {
        let head = request::head(outgoing)?;
        let connection = &self.connection;
        let received_before = connection.ledger.received_bytes();
        let mut opener = connection.opener();
        let stream = opener.next_stream;
        connection.ledger.open(stream, Arc::clone(meter));
        let handed_over = opener.sender.clone().send_request(head, outgoing.body.is_empty());
        let (response, mut upload) = match handed_over {
            Ok(handed_over) => handed_over,
            Err(error) => {
                drop(opener);
                connection.ledger.close(stream);
                connection.retire();
                meter.take_back();
                return Err(classify::of_head(&error));
            }
        };
        assert_eq!(response.stream_id().as_u32(), stream, "all streams of a connection begin under its lock");
        opener.next_stream += 2;
        drop(opener);
        if !outgoing.body.is_empty() {
            // A stream that is over already says so to whoever waits for its answer.
            let _over = upload.send_data(outgoing.body.clone(), true);
        }
        let (answer, meter) = (Incoming::Head(response), Arc::clone(meter));
        Ok(Exchange { answer, _upload: upload, stream, meter, received_before, is_over: false, place: self })
    }
}

impl Exchange {
    /// Waits for the answer's head, and tells beside it how long the body says to be. `use_http1` hears of it when the
    /// other side wants that.
    pub(in super::super) async fn head(
        &mut self,
        use_http1: impl FnOnce(Addresses),
    ) -> Result<(response::Parts, Option<u64>), Failure> {
        let headless = match self.await_head().await {
            Ok(answer) => return self.judge(answer),
            Err(headless) => headless,
        };
        let error = match headless {
            Headless::Broken(error) => error,
            Headless::InterimFlood => return Err(interim_flood()),
        };
        if classify::asks_for_http1(&error) {
            self.place.connection.retire();
            use_http1(self.place.connection.allowed);
        }
        if classify::is_refused(&error) {
            self.meter.refuse();
        } else if !self.meter.has_written() {
            let ended = self.place.connection.ledger.ended().cancelled();
            // Without a last word it stays in doubt.
            let _in_doubt = tokio::time::timeout(LAST_WORD, ended).await;
        }
        Err(self.explained(classify::of_head(&error)))
    }

    /// The next piece of the answer's body; nothing at its end.
    pub(in super::super) async fn next_piece(&mut self) -> Option<Result<Bytes, Failure>> {
        let Incoming::Body(body) = &mut self.answer else { return None };
        match body.data().await {
            Some(Ok(piece)) => {
                // A stream that is over has no window.
                let _over = body.flow_control().release_capacity(piece.len());
                Some(Ok(piece))
            }
            Some(Err(error)) => Some(Err(self.explained(classify::of_body(&error)))),
            // Trailers are no part of what we keep.
            None => {
                self.is_over = true;
                None
            }
        }
    }

    async fn await_head(&mut self) -> Result<Response<RecvStream>, Headless> {
        let Incoming::Head(response) = &mut self.answer else {
            return Err(Headless::InterimFlood);
        };
        let meter = &self.meter;
        std::future::poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(_interim))) = response.poll_informational(cx) {
                meter.received(1);
                meter.interim_answer();
                if meter.interim_answers() > INTERIM_ANSWERS_MAX {
                    return Poll::Ready(Err(Headless::InterimFlood));
                }
            }
            let answer = ready!(std::pin::Pin::new(&mut *response).poll(cx)).map_err(Headless::Broken)?;
            meter.received(1);
            Poll::Ready(Ok(answer))
        })
        .await
    }

    /// The head, and how long the body says to be.
    fn judge(&mut self, answer: Response<RecvStream>) -> Result<(response::Parts, Option<u64>), Failure> {
        let (head, body) = answer.into_parts();
        let announced = head.headers.get(CONTENT_LENGTH).filter(|_| !body.is_end_stream());
        let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
        self.answer = Incoming::Body(body);
        if is_over(&head.headers, self.place.connection.caps) {
            let message = "the answer's head has more bytes or fields than allowed";
            return Err(Failure::new(ErrorKind::TooLarge, message));
        }
        Ok((head, announced))
    }

    /// With what the connection knows of its own end.
    fn explained(&self, failure: Failure) -> Failure {
        match self.place.connection.ledger.cause() {
            Some(cause) => Failure { message: format!("{} ({cause})", failure.message), ..failure },
            None => failure,
        }
    }
}

impl Frames for Exchange {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, Failure>> {
        if self.is_over {
            return None;
        }
        if let Some(piece) = self.next_piece().await {
            return Some(piece.map(Frame::data));
        }
        let Incoming::Body(body) = &mut self.answer else { return None };
        match body.trailers().await {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(self.explained(classify::of_body(&error)))),
        }
    }

    fn is_over(&self) -> bool {
        self.is_over || matches!(&self.answer, Incoming::Body(body) if body.is_end_stream())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let connection = &self.place.connection;
        self.meter.end();
        if self.meter.has_written() {
            connection.ledger.close(self.stream);
        } else {
            connection.ledger.give_up(self.stream, clock::instant());
        }
        let is_silent = connection.ledger.received_bytes() == self.received_before;
        if !self.is_over && is_silent {
            connection.doubt();
        }
    }
}

/// As HTTP/1.1 would write it, so that one cap means the same in both.
fn is_over(headers: &HeaderMap, caps: HeaderCaps) -> bool {
    let status_line = "HTTP/1.1 200 OK\r\n\r\n".len();
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    headers.len() > usize::from(caps.fields) || status_line + lines.sum::<usize>() > caps.bytes as usize
}

fn interim_flood() -> Failure {
    Failure::new(ErrorKind::TooLarge, format!("more than {INTERIM_ANSWERS_MAX} interim (1xx) answers"))
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Head(_) => "Head",
            Self::Body(_) => "Body",
        })
    }
}
