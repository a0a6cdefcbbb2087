//! A connection's stream, which keeps back what hyper says of its own accord to whoever sent no request that can be
//! understood: a bare 400, 414 or 431, for which a problem document shall go out.
//!
//! hyper writes that head, ends the connection's future with an error and never reads again. So bytes that may be it are
//! held until it is known: when hyper reads on they were part of an answer and go out as they are.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::response::Response;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Longer than the head that hyper writes.
const HEAD_BYTES_MAX: usize = 256;

/// A stream, and what may be hyper's last word on it.
#[derive(Debug)]
pub(crate) struct LastWord<S> {
    stream: S,
    held: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> LastWord<S> {
    pub(crate) const fn on(stream: S) -> Self {
        Self { stream, held: Vec::new() }
    }

    /// The status that hyper has answered something with that it did not understand.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        status(&self.held)
    }

    /// Sends this answer instead, which must be whole, and is the connection's last.
    pub(crate) async fn replace(&mut self, response: Response) {
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return };
        let body = body.to_bytes();
        let mut head = format!("HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\n", parts.status, body.len());
        for (name, value) in &parts.headers {
            if !matches!(name.as_str(), "connection" | "content-length") {
                head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
            }
        }
        self.held = [head.as_bytes(), b"\r\n", &body].concat();
    }

    /// The stream, when all is written.
    pub(crate) async fn into_inner(self) -> S {
        let Self { mut stream, held } = self;
        // Whoever has gone away meanwhile hears nothing.
        let _ = stream.write_all(&held).await;
        stream
    }

    /// What was held was none of hyper's last words, or something follows on it.
    fn poll_let_go(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &self.held))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

/// The status of a bare refusal that these bytes are.
fn status(bytes: &[u8]) -> Option<StatusCode> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (line, rest) = text.strip_prefix("HTTP/1.1 ")?.split_once("\r\n")?;
    let status = StatusCode::from_bytes(line.as_bytes().get(..3)?).ok()?;
    let is_bare = rest.ends_with("\r\n\r\n")
        && rest.contains("content-length: 0\r\n")
        && rest.find("\r\n\r\n") == Some(rest.len() - 4);
    (is_bare && matches!(status.as_u16(), 400 | 414 | 431)).then_some(status)
}

/// Where in these bytes a bare refusal begins with which they end.
fn begins_at(bytes: &[u8]) -> Option<usize> {
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let from = bytes.len().saturating_sub(HEAD_BYTES_MAX);
    let at = from + bytes[from..].windows(9).rposition(|window| window == b"HTTP/1.1 ")?;
    status(&bytes[at..]).map(|_| at)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for LastWord<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            // When it cannot be written now, the stream wakes us for that.
            let _ = self.poll_let_go(context)?;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LastWord<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_let_go(context))?;
        match begins_at(bytes) {
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
            Some(0) => {
                self.held.extend_from_slice(bytes);
                // Should hyper read on, it has to be asked to.
                context.waker().wake_by_ref();
                Poll::Ready(Ok(bytes.len()))
            }
            Some(at) => Pin::new(&mut self.stream).poll_write(context, &bytes[..at]),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A head by itself is one part.
        if let [part] = parts {
            return self.poll_write(context, part);
        }
        ready!(self.poll_let_go(context))?;
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_let_go(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_refusal_is_told_from_everything_else() {
        let check = |text: &str, expected: Option<usize>| assert_eq!(begins_at(text.as_bytes()), expected, "{text:?}");
        let refusal = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        check(refusal, Some(0));
        check(&format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{refusal}"), Some(40));
        check("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", None);
        check("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}", None);
        check("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nmore\r\n\r\n", None);
        check("", None);
    }

    #[tokio::test]
    async fn what_only_looks_like_one_goes_out_when_something_follows() {
        let (near, mut far) = tokio::io::duplex(1_024);
        let mut stream = LastWord::on(near);
        let refusal = b"HTTP/1.1 431 X\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(refusal).await.expect("held");
        assert_eq!(stream.status().map(|status| status.as_u16()), Some(431));
        stream.write_all(b"on").await.expect("written");
        drop(stream.into_inner().await);
        let mut seen = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut far, &mut seen).await.expect("it ends");
        assert_eq!(seen, [&refusal[..], b"on"].concat());
    }
}
