//! A client that sends exactly what a test writes, and reads one answer at a time.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// No wait in a test takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The result, or a panic when it takes unreasonably long.
pub(crate) async fn bounded<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("what a test waits for comes in time")
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Client<S> {
    stream: S,
    read: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client<TcpStream> {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::on(bounded(TcpStream::connect(address)).await.expect("the server listens"))
    }
}

impl Client<UnixStream> {
    pub(crate) async fn connect_socket(path: &Path) -> Self {
        Self::on(bounded(UnixStream::connect(path)).await.expect("the server listens"))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    const fn on(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        bounded(self.stream.write_all(bytes.as_ref())).await.expect("the server reads");
    }

    /// Nothing more will be sent.
    pub(crate) async fn finish_sending(&mut self) {
        bounded(self.stream.shutdown()).await.expect("the connection is open");
    }

    /// The next answer, whole; one to HEAD has no body.
    pub(crate) async fn reply(&mut self) -> Reply {
        bounded(self.read_reply(true)).await
    }

    pub(crate) async fn reply_to_head(&mut self) -> Reply {
        bounded(self.read_reply(false)).await
    }

    /// Whatever comes until the server closes.
    pub(crate) async fn rest(mut self) -> Vec<u8> {
        bounded(self.stream.read_to_end(&mut self.read)).await.expect("the server closes in order");
        self.read
    }

    async fn read_reply(&mut self, has_body: bool) -> Reply {
        let head_end = self.read_until(|read| read.windows(4).position(|four| four == b"\r\n\r\n")).await + 4;
        let head = String::from_utf8(self.read.drain(..head_end).collect()).expect("a head is text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: Vec::new() };
        if has_body && reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                reply.body.extend(chunk);
            }
            return reply;
        }
        let length = reply.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        if has_body && length > 0 {
            self.read_until(|read| (read.len() >= length).then_some(length)).await;
            reply.body = self.read.drain(..length).collect();
        }
        reply
    }

    /// Status and headers of the next answer, whose body is read by [`Client::chunk`].
    pub(crate) async fn head(&mut self) -> Reply {
        bounded(self.read_reply(false)).await
    }

    /// The next piece of a body that comes in pieces; nothing at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        bounded(self.read_chunk()).await
    }

    async fn read_chunk(&mut self) -> Option<Vec<u8>> {
        let line_end = self.read_until(|read| read.windows(2).position(|two| two == b"\r\n")).await;
        let line = String::from_utf8(self.read.drain(..line_end + 2).collect()).expect("a length is text");
        let length = usize::from_str_radix(line.trim_end(), 16).expect("a length");
        self.read_until(|read| (read.len() >= length + 2).then_some(length)).await;
        let chunk: Vec<u8> = self.read.drain(..length + 2).take(length).collect();
        (length > 0).then_some(chunk)
    }

    async fn read_until(&mut self, found: impl Fn(&[u8]) -> Option<usize>) -> usize {
        loop {
            if let Some(position) = found(&self.read) {
                return position;
            }
            let count = self.stream.read_buf(&mut self.read).await.expect("the connection is open");
            assert_ne!(count, 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}
