//! Ends as a server's event stream tells them.
//!
//! A stream that breaks is opened again; what happened meanwhile was missed, and is looked at.

use std::time::Duration;

use bytes::BytesMut;
use farcall_core::id::CallId;
use farcall_engine::batch::{Ends, News};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::client::{Request, Stream, Target};
use crate::exit::Failure;

/// News that may wait for whoever hears them slowly; then no more is read, and the server tells what was missed.
const NEWS_MAX: usize = 256;
/// How long is waited before a stream that broke is opened again.
const OPEN_AGAIN_DELAY: Duration = Duration::from_millis(200);
/// The longest event: one that goes on and on is none of ours.
const EVENT_BYTES_MAX: usize = 64 << 10;

/// What is heard of ends.
#[derive(Debug)]
pub(super) struct Heard {
    news: mpsc::Receiver<News>,
    stop: CancellationToken,
    _listening: AbortOnDropHandle<()>,
}

/// A stream of events, cut into its parts.
#[derive(Debug, Default)]
struct Parts {
    buffer: BytesMut,
}

/// As much of an event as tells whose it is.
#[derive(Debug, Deserialize)]
struct Event {
    id: String,
}

/// Opens a server's stream of events.
///
/// # Errors
/// When it does not answer, or refuses.
pub(super) async fn open(target: &Target) -> Result<Stream, Failure> {
    Stream::open(target, &Request::get(&["v1", "events"])).await
}

impl Heard {
    /// Listens to a stream, and to the next when it breaks, until `stop`.
    pub(super) fn new(target: Target, stream: Stream, stop: CancellationToken) -> Self {
        let (teller, news) = mpsc::channel(NEWS_MAX);
        let listening = AbortOnDropHandle::new(tokio::spawn(listen(target, stream, teller)));
        Self { news, stop, _listening: listening }
    }
}

impl Ends for Heard {
    async fn next(&mut self) -> News {
        tokio::select! {
            news = self.news.recv() => news.unwrap_or(News::Gone),
            () = self.stop.cancelled() => News::Gone,
        }
    }
}

/// Whoever goes away ends it.
async fn listen(target: Target, mut stream: Stream, teller: mpsc::Sender<News>) {
    loop {
        let mut parts = Parts::default();
        while let Some(piece) = stream.next().await {
            parts.buffer.extend_from_slice(&piece);
            for news in parts.news() {
                if teller.send(news).await.is_err() {
                    return;
                }
            }
            if parts.buffer.len() > EVENT_BYTES_MAX {
                break;
            }
        }
        stream = loop {
            tokio::time::sleep(OPEN_AGAIN_DELAY).await;
            // How long to wait for a server is decided by those who ask it something.
            if let Ok(stream) = open(&target).await {
                break stream;
            }
        };
        if teller.send(News::Missed).await.is_err() {
            return;
        }
    }
}

impl Parts {
    /// What the whole events in the buffer tell; the rest stays.
    fn news(&mut self) -> Vec<News> {
        let (mut ended, mut has_missed) = (Vec::new(), false);
        while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
            let event = self.buffer.split_to(end + 2);
            match field(&event, b"event: ") {
                Some(b"ended") => ended.extend(field(&event, b"data: ").and_then(call)),
                Some(b"missed") => has_missed = true,
                Some(_) | None => {}
            }
        }
        let ended = (!ended.is_empty()).then_some(News::Ended(ended));
        ended.into_iter().chain(has_missed.then_some(News::Missed)).collect()
    }
}

fn field<'e>(event: &'e [u8], name: &[u8]) -> Option<&'e [u8]> {
    event.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))
}

fn call(data: &[u8]) -> Option<CallId> {
    serde_json::from_slice::<Event>(data).ok()?.id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "call_01a1fed7-58bf-7e26-9a92-cc7f2a3b485e";

    fn told(parts: &mut Parts, piece: &str) -> Vec<String> {
        parts.buffer.extend_from_slice(piece.as_bytes());
        let told = |news| match news {
            News::Ended(calls) => format!("{} ended", calls.len()),
            News::Missed => "missed".to_owned(),
            News::Gone => "gone".to_owned(),
        };
        parts.news().into_iter().map(told).collect()
    }

    #[test]
    fn events_are_heard_however_they_are_cut_into_pieces() {
        let mut parts = Parts::default();
        let ended = format!("event: ended\ndata: {{\"id\":\"{ID}\",\"state\":\"failed\"}}\n\n");
        let others = format!(":\n\nevent: started\ndata: {{\"id\":\"{ID}\"}}\n\n");
        assert_eq!(told(&mut parts, &format!("{others}{ended}{ended}{}", &ended[..40])), ["2 ended"]);
        assert_eq!(told(&mut parts, &ended[40..ended.len() - 1]), [""; 0]);
        assert_eq!(told(&mut parts, "\nevent: missed\ndata: {\"missed\":7}\n\n"), ["1 ended", "missed"]);
        assert!(parts.buffer.is_empty());
    }
}
