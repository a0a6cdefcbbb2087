//! The running server: accepts connections, bounds their number, and stops without cutting off an answer.
//!
//! TCP and the socket each have a limit of their own, so that a crowded port never locks the user out.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use farcall_engine::Handle;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::access::Gate;
use crate::app::App;
use crate::attended::Client;
use crate::body::Bodies;
use crate::connection::{Serving, serve};
use crate::listen::{BindError, Listeners, Socket};
use crate::metrics::Metrics;
use crate::places::Places;
use crate::routes::Face;
use crate::routes::bulk::BULKS_MAX;

/// The pause after a connection that could not be accepted, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The most connections at a time of each way in.
const CONNECTIONS_MAX: usize = 1_024;

/// What can be set about a server beside the configuration's `server` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the socket is made.
    pub socket: PathBuf,
    /// The longest wait for a request's complete head, also on a connection that is kept alive.
    pub header_timeout: Duration,
    /// The longest wait for the next piece of a request's body.
    pub body_timeout: Duration,
    /// How long requests in flight may take once the server is to stop.
    pub shutdown_timeout: Duration,
    /// Connections at a time, for TCP and for the socket each; more wait to be accepted.
    pub connections_max: usize,
    /// Bytes of request bodies in memory at a time; more are refused with 503.
    pub bodies_bytes_max: u64,
}

/// The HTTP face of one engine, bound and ready to run.
///
/// # Example
/// ```
/// use std::sync::Arc;
///
/// use farcall_engine::Engine;
/// use farcall_engine::config::{Config, Listen};
/// use farcall_server::{Options, Server};
/// use farcall_store::memory::MemoryStore;
/// use tokio_util::sync::CancellationToken;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let home = tempfile::tempdir()?;
/// let mut config = Config::default();
/// config.server.listen = Listen::Address("127.0.0.1:0".to_owned());
/// let options = farcall_engine::Options {
///     directory: home.path().to_owned(),
///     config: Arc::new(config),
///     launcher: std::env::current_exe()?,
/// };
/// let engine = Engine::start(Box::new(MemoryStore::new()), options)?;
///
/// let server = Server::bind(engine.handle().clone(), Options::new(home.path())).await?;
/// assert!(server.local_addr().is_some_and(|address| address.ip().is_loopback()));
/// let shutdown = CancellationToken::new();
/// let serving = tokio::spawn(server.run(shutdown.clone()));
/// shutdown.cancel();
/// serving.await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server {
    listeners: Listeners,
    app: Arc<App>,
    handle: Handle,
    options: Options,
}

/// One way in.
#[derive(Debug)]
struct Door<L> {
    listener: L,
    serving: Serving,
    slots: Arc<Semaphore>,
    shutdown_timeout: Duration,
}

/// What connections come from.
trait Listener {
    type Stream: Client;

    fn accept(&self) -> impl Future<Output = std::io::Result<Self::Stream>> + Send;
}

impl Options {
    /// The defaults for a working directory, whose socket is `.farcall/farcall.sock`.
    pub fn new(directory: &Path) -> Self {
        Self {
            socket: directory.join(".farcall/farcall.sock"),
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(10),
            connections_max: connections_max(getrlimit(Resource::Nofile).current),
            bodies_bytes_max: 256 << 20,
        }
    }
}

/// A quarter of the descriptors that the process may have, for each of the two ways in: the other half is for calls.
fn connections_max(descriptors: Option<u64>) -> usize {
    let quarter = descriptors.map_or(CONNECTIONS_MAX as u64, |descriptors| descriptors / 4);
    usize::try_from(quarter).unwrap_or(CONNECTIONS_MAX).clamp(1, CONNECTIONS_MAX)
}

impl Server {
    /// Binds what the engine's configuration asks for, and the socket.
    ///
    /// # Errors
    /// When an address or the socket cannot be bound, or must not be.
    pub async fn bind(handle: Handle, options: Options) -> Result<Self, BindError> {
        let listeners = Listeners::bind(&handle.config().server, &options.socket).await?;
        Ok(Self::new(listeners, handle, options))
    }

    /// A server on what is bound already, for programs that bind before they start their engine.
    pub fn new(listeners: Listeners, handle: Handle, options: Options) -> Self {
        let bodies = Bodies::new(options.bodies_bytes_max, options.body_timeout);
        let bulks = Places::new("bulk", BULKS_MAX);
        let app = Arc::new(App::new(Arc::new(Face { handle: handle.clone(), bodies, bulks, metrics: Metrics::new() })));
        Self { listeners, app, handle, options }
    }

    /// The TCP address, if there is one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.local_addr()
    }

    /// The socket's file.
    pub fn socket_path(&self) -> &Path {
        self.listeners.socket.path()
    }

    /// Serves until `shutdown` is cancelled, then lets requests in flight finish for `shutdown_timeout`. Nothing of it
    /// runs on when this returns or is dropped, and the socket's file is gone.
    pub async fn run(self, shutdown: CancellationToken) {
        let tcp_gate = self.local_addr().map(|address| Gate::tcp(self.handle.clone(), address));
        let tcp_serving = tcp_gate.map(|gate| self.serving(gate, &shutdown));
        let socket_serving = self.serving(Gate::user(), &shutdown);
        let Self { listeners: Listeners { tcp, socket }, options, .. } = self;
        let tcp_door = async {
            if let Some((listener, serving)) = tcp.zip(tcp_serving) {
                Door::new(listener, serving, &options).run(&shutdown).await;
            }
        };
        let socket_door = Door::new(socket, socket_serving, &options).run(&shutdown);
        tokio::join!(tcp_door, socket_door);
    }

    fn serving(&self, gate: Gate, shutdown: &CancellationToken) -> Serving {
        Serving {
            app: Arc::clone(&self.app),
            gate,
            header_timeout: self.options.header_timeout,
            stopping: shutdown.clone(),
        }
    }
}

impl<L: Listener> Door<L> {
    fn new(listener: L, serving: Serving, options: &Options) -> Self {
        let slots = Arc::new(Semaphore::new(options.connections_max));
        Self { listener, serving, slots, shutdown_timeout: options.shutdown_timeout }
    }

    async fn run(self, shutdown: &CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                (stream, slot) = self.accept() => self.spawn(&mut connections, stream, slot),
                Some(ended) = connections.join_next() => report(ended),
                () = shutdown.cancelled() => break,
            }
        }
        let Self { listener, shutdown_timeout, .. } = self;
        drop(listener);
        let finish = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if timeout(shutdown_timeout, finish).await.is_err() {
            tracing::warn!(connections = connections.len(), "requests in flight were cut off");
            connections.shutdown().await;
        }
    }

    /// The next connection, once there is room for it.
    async fn accept(&self) -> (L::Stream, OwnedSemaphorePermit) {
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned().await.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok(stream) => return (stream, slot),
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, connections: &mut JoinSet<()>, stream: L::Stream, slot: OwnedSemaphorePermit) {
        let serving = self.serving.clone();
        connections.spawn(async move {
            serve(stream, serving).await;
            drop(slot);
        });
    }
}

/// The client went away before it was accepted.
fn is_of_the_client(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::ConnectionAborted | std::io::ErrorKind::ConnectionReset)
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(error = %error, "a connection's task ended early");
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> std::io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        // Answers are small and whole; waiting for more to send only delays them.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Listener for Socket {
    type Stream = UnixStream;

    async fn accept(&self) -> std::io::Result<UnixStream> {
        let listener: &UnixListener = &self.listener;
        listener.accept().await.map(|(stream, _)| stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_descriptors_are_left_to_calls() {
        assert_eq!(connections_max(Some(256)), 64);
        assert_eq!(connections_max(Some(20_000)), CONNECTIONS_MAX);
        assert_eq!((connections_max(Some(0)), connections_max(None)), (1, CONNECTIONS_MAX));
    }
}
