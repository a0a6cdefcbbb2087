//! A loopback upstream that behaves as badly as a test wants.
//!
//! Every connection plays a script of steps, byte for byte, with no HTTP library in between. What arrives is counted,
//! and tests wait for what the upstream has seen, never for time to pass.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use url::Url;

/// No wait in a test takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one connection does next. After the last step it is closed.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Reads one request with its body.
    Request,
    /// Reads the head of a request and leaves its body unread.
    RequestHead,
    /// Sends these bytes at once.
    Send(Vec<u8>),
    /// Sends these bytes one at a time.
    Drip(Vec<u8>),
    /// Sends this byte again and again, so far apart, until the other side has closed.
    DripFor { byte: u8, every: Duration },
    /// Sends these bytes over and over, until the other side has closed.
    SendForever(Vec<u8>),
    /// Answers every request with these bytes, until the other side has closed.
    Serve(Vec<u8>),
    /// Waits until the test opens the gate.
    Gate(Arc<Semaphore>),
    /// From here on passes bytes on to and from this port of this machine.
    Relay(u16),
    /// Waits until the other side has closed.
    AwaitClose,
    /// Closes with a reset.
    Reset,
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Which connection it came on, counted from 0.
    pub(crate) connection: usize,
    /// Request line and headers, as written.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Everything an upstream has seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Connections accepted.
    pub(crate) connections: usize,
    /// Connections over, whoever closed them.
    pub(crate) closed: usize,
    pub(crate) arrivals: Vec<Arrival>,
}

/// A listening upstream; gone when dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    scheme: &'static str,
    seen: Arc<watch::Sender<Seen>>,
    listening: JoinHandle<()>,
}

/// What a connection's script is, by the connection's number.
type Script = dyn Fn(usize) -> Vec<Step> + Send + Sync;

/// A stream whose TCP socket can be reached through whatever is on it.
trait Peer: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;
}

/// An HTTP/1.1 answer of 200 with this body and its length.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The result, or a panic when it takes unreasonably long.
pub(crate) async fn bounded<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("what a test waits for comes in time")
}

impl Upstream {
    /// The same script for every connection.
    pub(crate) async fn always(script: Vec<Step>) -> Self {
        Self::start(move |_| script.clone()).await
    }

    /// A script for each connection.
    pub(crate) async fn start(script: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::listen(Arc::new(script), None).await
    }

    /// The same script for every connection, under TLS.
    pub(crate) async fn tls(config: ServerConfig, script: Vec<Step>) -> Self {
        Self::listen(Arc::new(move |_| script.clone()), Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    /// A URL of this upstream, by its address.
    pub(crate) fn url(&self, path: &str) -> Url {
        format!("{}://{}{path}", self.scheme, self.address).parse().expect("a valid URL")
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Waits until the upstream has seen what the test expects.
    pub(crate) async fn until(&self, expected: impl FnMut(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        let waited = bounded(seen.wait_for(expected)).await;
        drop(waited.expect("the upstream outlives the wait"));
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.seen.borrow().arrivals.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.borrow().connections
    }

    async fn listen(script: Arc<Script>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let seen = Arc::new(watch::Sender::new(Seen::default()));
        let listening = tokio::spawn(accept(listener, script, tls, Arc::clone(&seen)));
        Self { address, scheme, seen, listening }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn accept(listener: TcpListener, script: Arc<Script>, tls: Option<TlsAcceptor>, seen: Arc<watch::Sender<Seen>>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let number = seen.borrow().connections;
        seen.send_modify(|seen| seen.connections += 1);
        let (script, tls, seen) = (script(number), tls.clone(), Arc::clone(&seen));
        connections.spawn(async move {
            // A connection that breaks is what half of the tests are about.
            let _broken = serve(tcp, tls, number, script, &seen).await;
            seen.send_modify(|seen| seen.closed += 1);
        });
    }
}

async fn serve(
    tcp: TcpStream,
    tls: Option<TlsAcceptor>,
    number: usize,
    script: Vec<Step>,
    seen: &watch::Sender<Seen>,
) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    match tls {
        Some(tls) => play(tls.accept(tcp).await?, number, script, seen).await,
        None => play(tcp, number, script, seen).await,
    }
}

async fn play(mut peer: impl Peer, number: usize, script: Vec<Step>, seen: &watch::Sender<Seen>) -> io::Result<()> {
    for step in script {
        match step {
            Step::Request => request(&mut peer, number, seen).await?,
            Step::RequestHead => drop(head(&mut peer).await?),
            Step::Send(bytes) => send(&mut peer, &bytes).await?,
            Step::Drip(bytes) => drip(&mut peer, &bytes).await?,
            Step::DripFor { byte, every } => {
                let mut pace = tokio::time::interval(every);
                loop {
                    pace.tick().await;
                    send(&mut peer, &[byte]).await?;
                }
            }
            Step::SendForever(bytes) => loop {
                send(&mut peer, &bytes).await?;
            },
            Step::Serve(bytes) => loop {
                request(&mut peer, number, seen).await?;
                send(&mut peer, &bytes).await?;
            },
            Step::Gate(gate) => gate.acquire().await.map_err(io::Error::other)?.forget(),
            Step::Relay(port) => {
                let mut other = TcpStream::connect(("127.0.0.1", port)).await?;
                tokio::io::copy_bidirectional(&mut peer, &mut other).await?;
            }
            Step::AwaitClose => drop(tokio::io::copy(&mut peer, &mut tokio::io::sink()).await?),
            Step::Reset => peer.tcp().set_zero_linger()?,
        }
    }
    Ok(())
}

async fn send(peer: &mut impl Peer, bytes: &[u8]) -> io::Result<()> {
    peer.write_all(bytes).await?;
    peer.flush().await
}

async fn drip(peer: &mut impl Peer, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        send(peer, &[*byte]).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn request(peer: &mut impl Peer, connection: usize, seen: &watch::Sender<Seen>) -> io::Result<()> {
    let head = head(peer).await?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(Ok(0), str::parse).map_err(io::Error::other)?;
    let mut body = vec![0; length];
    peer.read_exact(&mut body).await?;
    seen.send_modify(|seen| seen.arrivals.push(Arrival { connection, head, body }));
    Ok(())
}

async fn head(peer: &mut impl Peer) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(peer.read_u8().await?);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

impl Peer for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Peer for tokio_rustls::server::TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}
