//! An engine and its server, as a test wants them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use farcall_engine::config::{Addresses, Config, Listen};
use farcall_engine::{Engine, Handle};
use farcall_server::{Options, Server};
use farcall_store::memory::{MemoryStore, Trouble};
use farcall_store::port::Store;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::http::{Client, Reply, bounded};

/// What a test can set before the start.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) store: Box<dyn Store>,
    pub(crate) options: Options,
    home: TempDir,
}

/// Running.
#[derive(Debug)]
pub(crate) struct Farcall {
    pub(crate) engine: Engine,
    pub(crate) address: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    home: TempDir,
}

impl Setup {
    /// A free port, no tokens, nothing declared, and calls may go to this machine.
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let mut config = Config::default();
        config.server.listen = Listen::Address("127.0.0.1:0".to_owned());
        config.undeclared.addresses = Some(Addresses::Any);
        Self { config, store: Box::new(MemoryStore::new()), options: Options::new(home.path()), home }
    }

    pub(crate) fn with(mut self, set: impl FnOnce(&mut Self)) -> Self {
        set(&mut self);
        self
    }

    /// What a configuration file says holds.
    pub(crate) fn with_file(self, text: &str) -> Self {
        std::fs::write(self.home.path().join("farcall.yml"), text).expect("a file");
        let loaded = farcall_engine::config::load(self.home.path(), &farcall_engine::config::LoadOptions::default());
        let mut config = loaded.expect("the configuration is right").config;
        config.server.listen = Listen::Address("127.0.0.1:0".to_owned());
        self.with(|setup| setup.config = config)
    }

    /// A store on which little is free.
    pub(crate) fn with_free_bytes(self, free_bytes: u64) -> Self {
        let mut store = MemoryStore::new();
        store.set_free_bytes(free_bytes);
        self.with(|setup| setup.store = Box::new(store))
    }

    /// A store on a disk in trouble.
    pub(crate) fn with_trouble(self, trouble: Trouble) -> Self {
        let store = MemoryStore::new();
        store.troubles().set(trouble);
        self.with(|setup| setup.store = Box::new(store))
    }

    pub(crate) async fn start(self) -> Farcall {
        let options = farcall_engine::Options {
            directory: self.home.path().to_owned(),
            config: Arc::new(self.config),
            launcher: PathBuf::from("/bin/false"),
        };
        let engine = Engine::start(self.store, options).expect("the engine starts");
        let server = Server::bind(engine.handle().clone(), self.options).await.expect("the server binds");
        let address = server.local_addr().expect("it listens");
        let socket = server.socket_path().to_owned();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.run(stop.clone()));
        Farcall { engine, address, socket, stop, serving, home: self.home }
    }
}

impl Farcall {
    pub(crate) async fn start() -> Self {
        Setup::new().start().await
    }

    pub(crate) const fn handle(&self) -> &Handle {
        self.engine.handle()
    }

    /// Its working directory.
    pub(crate) fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    pub(crate) async fn connect(&self) -> Client<TcpStream> {
        Client::connect(self.address).await
    }

    pub(crate) async fn connect_socket(&self) -> Client<UnixStream> {
        Client::connect_socket(&self.socket).await
    }

    /// The answer to a request as written, but for LF in place of CR LF, on a connection of its own.
    pub(crate) async fn exchange(&self, request: &str) -> Reply {
        let mut client = self.connect().await;
        client.send(request.replace('\n', "\r\n")).await;
        client.reply().await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.exchange(&format!("GET {path} HTTP/1.1\nHost: localhost\n\n")).await
    }

    /// Posts a call; `headers` are lines, each with its end.
    pub(crate) async fn post_call(&self, headers: &str, document: &str) -> Reply {
        let mut client = self.connect().await;
        client.send(post(headers, document)).await;
        client.reply().await
    }

    /// Sends a request with a body of JSON.
    pub(crate) async fn send(&self, method: &str, path: &str, body: &str) -> Reply {
        let length = body.len();
        let mut client = self.connect().await;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        client.send(head + body).await;
        client.reply().await
    }

    /// Waits until so many calls have ended.
    pub(crate) async fn until_ended(&self, count: u64) {
        let ended = |snapshot: &farcall_engine::Snapshot| {
            let states = farcall_core::call::State::ALL.iter().filter(|state| state.is_end());
            states.map(|&state| snapshot.census.calls(state)).sum::<u64>() >= count
        };
        bounded(self.handle().snapshots().wait_for(ended)).await.expect("the engine runs");
    }

    /// Asks the server to stop and waits until it has. The directory stays as long as the test holds it.
    pub(crate) async fn stop(self) -> TempDir {
        self.stop.cancel();
        bounded(self.serving).await.expect("the server does not panic");
        self.home
    }
}

/// A POST of a call document with its length.
pub(crate) fn post(headers: &str, document: &str) -> String {
    let headers = headers.replace('\n', "\r\n");
    let length = document.len();
    format!("POST /v1/calls HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{document}")
}
