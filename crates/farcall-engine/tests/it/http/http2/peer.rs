//! An HTTP/2 upstream that behaves as badly as a test wants, frame by frame, with no HTTP library in between.
//!
//! Every connection plays a script. What arrives is counted, and tests wait for what the upstream has seen.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use url::Url;

use crate::http::tls::Authority;
use crate::upstream::bounded;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// `SETTINGS_MAX_CONCURRENT_STREAMS` and `SETTINGS_INITIAL_WINDOW_SIZE`.
pub(super) const MAX_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW: u16 = 4;
/// `:status: 200` in HPACK's static table, and the same for 100 written out.
pub(super) const STATUS_200: &[u8] = &[0x88];
pub(super) const STATUS_103: &[u8] = &[0x08, 3, b'1', b'0', b'3'];

/// Error codes (RFC 9113, section 7).
pub(super) const NO_ERROR: u32 = 0;
pub(super) const INTERNAL_ERROR: u32 = 2;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;
pub(super) const HTTP_1_1_REQUIRED: u32 = 13;

/// Everything an upstream has seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) connections: usize,
    pub(super) closed: usize,
    /// Complete requests: connection and stream.
    pub(super) arrivals: Vec<(usize, u32)>,
    /// Requests whose heads have begun: connection and stream.
    pub(super) heads: Vec<(usize, u32)>,
    /// Streams that were reset: connection, stream and code.
    pub(super) resets: Vec<(usize, u32, u32)>,
    pub(super) pings: usize,
}

/// A listening upstream under TLS that speaks HTTP/2; gone when dropped.
#[derive(Debug)]
pub(super) struct Peers {
    address: SocketAddr,
    pub(super) seen: Arc<watch::Sender<Seen>>,
    listening: JoinHandle<()>,
}

/// One connection of it.
pub(super) struct Peer {
    pub(super) number: usize,
    stream: TlsStream<TcpStream>,
    pub(super) seen: Arc<watch::Sender<Seen>>,
    /// Answers PING.
    pub(super) is_polite: bool,
}

/// A frame as it arrived.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Peers {
    /// Every connection tells these settings and then plays the script.
    pub(super) async fn start<F>(
        authority: &Authority,
        settings: &'static [(u16, u32)],
        script: impl Fn(Peer) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let mut config = authority.server("127.0.0.1");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let seen = Arc::new(watch::Sender::new(Seen::default()));
        let listening = tokio::spawn(accept(listener, tls, Arc::new(script), settings, Arc::clone(&seen)));
        Self { address, seen, listening }
    }

    /// A URL of this upstream, by its address.
    pub(super) fn url(&self, path: &str) -> Url {
        format!("https://{}{path}", self.address).parse().expect("a valid URL")
    }

    /// Waits until the upstream has seen what the test expects.
    pub(super) async fn until(&self, expected: impl FnMut(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        drop(bounded(seen.wait_for(expected)).await.expect("the upstream outlives the wait"));
    }

    pub(super) fn arrivals(&self) -> Vec<(usize, u32)> {
        self.seen.borrow().arrivals.clone()
    }

    pub(super) fn heads(&self) -> Vec<(usize, u32)> {
        self.seen.borrow().heads.clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.borrow().connections
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn accept<F>(
    listener: TcpListener,
    tls: TlsAcceptor,
    script: Arc<impl Fn(Peer) -> F + Send + Sync + 'static>,
    settings: &'static [(u16, u32)],
    seen: Arc<watch::Sender<Seen>>,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let number = seen.borrow().connections;
        seen.send_modify(|seen| seen.connections += 1);
        let (tls, script, seen) = (tls.clone(), Arc::clone(&script), Arc::clone(&seen));
        connections.spawn(async move {
            // A connection that breaks is what half of the tests are about.
            let _broken: io::Result<()> = async {
                tcp.set_nodelay(true)?;
                let stream = tls.accept(tcp).await?;
                let mut peer = Peer { number, stream, seen: Arc::clone(&seen), is_polite: true };
                peer.send(frame(SETTINGS, 0, 0, &settings_payload(settings))).await?;
                peer.stream.read_exact(&mut [0; 24]).await?;
                script(peer).await
            }
            .await;
            seen.send_modify(|seen| seen.closed += 1);
        });
    }
}

impl Peer {
    /// The next frame. Settings and, by the polite, pings are acknowledged on the way.
    pub(super) async fn frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let [l2, l1, l0, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l2, l1, l0]) as usize];
        self.stream.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes(id);
        let arrived = Frame { kind, flags, stream, payload };
        self.note(&arrived);
        match kind {
            SETTINGS if flags & ACK == 0 => self.send(frame(SETTINGS, ACK, 0, &[])).await?,
            PING if flags & ACK == 0 && self.is_polite => self.send(frame(PING, ACK, 0, &arrived.payload)).await?,
            _ => {}
        }
        Ok(arrived)
    }

    /// The stream of the next request, once that is complete.
    pub(super) async fn request(&mut self) -> io::Result<u32> {
        loop {
            let frame = self.frame().await?;
            if frame.ends_request() {
                return Ok(frame.stream);
            }
        }
    }

    /// The stream of the next request, as soon as its head is there.
    pub(super) async fn request_head(&mut self) -> io::Result<u32> {
        loop {
            let frame = self.frame().await?;
            if frame.kind == HEADERS {
                return Ok(frame.stream);
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Answers every request.
    pub(super) async fn serve(mut self, body: &str) -> io::Result<()> {
        loop {
            let stream = self.request().await?;
            self.send(ok(stream, body)).await?;
        }
    }

    /// Reads until the other side has closed.
    pub(super) async fn linger(mut self) -> io::Result<()> {
        loop {
            self.frame().await?;
        }
    }

    fn note(&self, frame: &Frame) {
        let (number, stream) = (self.number, frame.stream);
        if frame.kind == HEADERS {
            self.seen.send_modify(|seen| seen.heads.push((number, stream)));
        }
        self.seen.send_modify(|seen| match frame.kind {
            RST_STREAM => {
                let code = frame.payload.as_slice().try_into().map(u32::from_be_bytes);
                seen.resets.push((number, stream, code.unwrap_or(u32::MAX)));
            }
            PING if frame.flags & ACK == 0 => seen.pings += 1,
            _ if frame.ends_request() => seen.arrivals.push((number, stream)),
            _ => {}
        });
    }
}

impl Frame {
    fn ends_request(&self) -> bool {
        (self.kind == HEADERS || self.kind == DATA) && self.flags & END_STREAM != 0
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames here are small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A complete answer of 200 with this body.
pub(super) fn ok(stream: u32, body: &str) -> Vec<u8> {
    [head(stream), frame(DATA, END_STREAM, stream, body.as_bytes())].concat()
}

/// The head of an answer of 200, whose body follows.
pub(super) fn head(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, STATUS_200)
}

/// A field as HPACK writes it without any table (RFC 7541, section 6.2.2), name and value under 127 bytes.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|&bytes| bytes < 127).expect("a short text");
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

pub(super) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(super) fn goaway(last_stream: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last_stream.to_be_bytes(), code.to_be_bytes()].concat())
}

fn settings_payload(settings: &[(u16, u32)]) -> Vec<u8> {
    settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect()
}
