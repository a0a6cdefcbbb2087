//! What can be bound, and what must not be.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use farcall_engine::config::{self, Listen};
use farcall_server::{BindError, Listeners};

use crate::farcall::{Farcall, Setup};
use crate::http::Client;

fn listening(address: &str, tokens: &[&str]) -> config::Server {
    config::Server {
        listen: Listen::Address(address.to_owned()),
        tokens: tokens.iter().map(|&token| token.to_owned()).collect(),
        ..config::Server::default()
    }
}

fn nowhere() -> config::Server {
    config::Server { listen: Listen::None, ..config::Server::default() }
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().expect("it is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn without_tokens_only_loopback_is_bound() {
    let home = tempfile::tempdir().expect("a directory");
    let socket = home.path().join("farcall.sock");
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let refused = Listeners::bind(&listening(address, &[]), &socket).await;
        assert!(matches!(refused, Err(BindError::NotLoopback { .. })), "{address}: {refused:?}");
        assert!(!socket.exists(), "nothing is bound then");
    }
    for address in ["127.0.0.1:0", "127.8.8.8:0", "localhost:0"] {
        let bound = Listeners::bind(&listening(address, &[]), &socket).await.expect("loopback can be bound");
        assert!(bound.local_addr().is_some_and(|address| address.ip().is_loopback() && address.port() != 0));
    }
    let bound = Listeners::bind(&listening("0.0.0.0:0", &["secret"]), &socket).await.expect("with tokens all can be");
    assert!(bound.local_addr().is_some_and(|address| address.ip().is_unspecified()));
    drop(bound);
    let bound = Listeners::bind(&nowhere(), &socket).await.expect("the socket alone");
    assert_eq!(bound.local_addr(), None);
}

#[tokio::test]
async fn an_address_in_use_is_told_from_one_that_does_not_exist() {
    let home = tempfile::tempdir().expect("a directory");
    let socket = home.path().join("farcall.sock");
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("it is bound").to_string();
    let refused = Listeners::bind(&listening(&address, &[]), &socket).await;
    assert!(matches!(&refused, Err(BindError::AddressInUse { listen }) if *listen == address), "{refused:?}");
    let refused = Listeners::bind(&listening("192.0.2.1:1", &["secret"]), &socket).await;
    assert!(matches!(refused, Err(BindError::Listen { .. })), "{refused:?}");
    let refused = Listeners::bind(&listening("no such name:1", &[]), &socket).await;
    assert!(matches!(refused, Err(BindError::Unresolved { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_socket_belongs_to_the_user_alone_and_goes_with_the_server() {
    let farcall = Farcall::start().await;
    let socket = farcall.socket.clone();
    assert!(socket.ends_with(".farcall/farcall.sock"));
    assert_eq!(mode(&socket), 0o600);
    let directory = socket.parent().expect("its directory");
    assert_eq!(mode(directory), 0o700);
    let names = directory.read_dir().expect("it can be read").map(|entry| entry.expect("an entry").file_name());
    let sockets: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("farcall.sock")).collect();
    assert_eq!(sockets, ["farcall.sock"], "nothing of its making is left");
    let mut client = farcall.connect_socket().await;
    client.send("GET /healthz HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    drop(client);
    let _home = farcall.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_a_live_one_is_not() {
    let home = tempfile::tempdir().expect("a directory");
    let socket = home.path().join("farcall.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("it can be bound"));
    let workshop = home.path().join("farcall.sock.new");
    std::fs::create_dir(&workshop).expect("it can be made");
    drop(std::os::unix::net::UnixListener::bind(workshop.join("s")).expect("it can be bound"));
    assert!(socket.exists(), "a closed socket leaves its file");
    let bound = Listeners::bind(&nowhere(), &socket).await.expect("what is left behind is replaced");
    assert!(!workshop.exists());
    let refused = Listeners::bind(&nowhere(), &socket).await;
    assert!(matches!(refused, Err(BindError::SocketInUse { .. })), "{refused:?}");
    drop(bound);
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_directory_with_a_long_path_has_a_socket_too() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("d".repeat(100)).join("e".repeat(100));
    let socket = directory.join("farcall.sock");
    let bound = Listeners::bind(&nowhere(), &socket).await.expect("it can be bound");
    assert_eq!(mode(&socket), 0o600);
    let refused = Listeners::bind(&nowhere(), &socket).await;
    assert!(matches!(refused, Err(BindError::SocketInUse { .. })), "{refused:?}");
    drop(bound);
    assert!(!socket.exists());
}

#[tokio::test]
async fn another_file_under_the_sockets_name_is_left_alone_at_the_end() {
    let farcall = Farcall::start().await;
    let socket = farcall.socket.clone();
    std::fs::remove_file(&socket).expect("it can be removed");
    std::fs::write(&socket, "mine").expect("it can be written");
    let _home = farcall.stop().await;
    assert_eq!(std::fs::read(&socket).expect("it is still there"), b"mine");
}

#[tokio::test]
async fn a_server_may_listen_nowhere_but_on_its_socket() {
    let home = tempfile::tempdir().expect("a directory");
    let setup = Setup::new();
    let socket = home.path().join("s");
    let engine = farcall_engine::Engine::start(
        setup.store,
        farcall_engine::Options {
            directory: home.path().to_owned(),
            config: std::sync::Arc::new(config::Config { server: nowhere(), ..setup.config }),
            launcher: "/bin/false".into(),
        },
    )
    .expect("the engine starts");
    let options = farcall_server::Options { socket: socket.clone(), ..setup.options };
    let server = farcall_server::Server::bind(engine.handle().clone(), options).await.expect("it binds");
    assert_eq!(server.local_addr(), None);
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(server.run(stop.clone()));
    let mut client = Client::connect_socket(&socket).await;
    client.send("GET /healthz HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    stop.cancel();
    serving.await.expect("it ends");
}
