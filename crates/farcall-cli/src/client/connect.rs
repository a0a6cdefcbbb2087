//! Opening a connection: a Unix socket, TCP, or TLS over TCP, and HTTP/1.1 on it.
//!
//! TLS believes whom the platform believes, as the engine does; `SSL_CERT_FILE` names other roots.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::Host;

use super::Content;
use super::target::{Remote, Target};

/// What a socket's address has room for on Linux, without the NUL at its end (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A connection that requests can be sent on; closed when dropped.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) sender: SendRequest<Content>,
    _driver: AbortOnDropHandle<()>,
}

pub(super) async fn open(target: &Target) -> anyhow::Result<Open> {
    match target {
        Target::Socket { socket, .. } => speak(connect_socket(socket).await?).await,
        Target::Url(remote) => {
            let tcp = connect_tcp(remote).await?;
            if remote.is_https { speak(secured(remote, tcp).await?).await } else { speak(tcp).await }
        }
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> anyhow::Result<Open> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // How a connection ended is told to whoever awaits an answer on it.
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Open { sender, _driver: AbortOnDropHandle::new(driver) })
}

/// A path that is too long for a socket address is gone to through the directory's descriptor.
async fn connect_socket(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return UnixStream::connect(path).await;
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = i32::try_from((rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC).bits());
    let flags = flags.expect("flags are small numbers");
    let directory = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(directory)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    UnixStream::connect(short).await
}

async fn connect_tcp(remote: &Remote) -> io::Result<TcpStream> {
    let tcp = match &remote.host {
        Host::Domain(name) => TcpStream::connect((name.as_str(), remote.port)).await?,
        Host::Ipv4(address) => TcpStream::connect((*address, remote.port)).await?,
        Host::Ipv6(address) => TcpStream::connect((*address, remote.port)).await?,
    };
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

async fn secured(
    remote: &Remote,
    tcp: TcpStream,
) -> anyhow::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    let name = match &remote.host {
        Host::Domain(name) => ServerName::try_from(name.clone()).context("this cannot be the name in a certificate")?,
        Host::Ipv4(address) => ServerName::from(std::net::IpAddr::V4(*address)),
        Host::Ipv6(address) => ServerName::from(std::net::IpAddr::V6(*address)),
    };
    // Reading the platform's roots takes milliseconds, and nothing else goes on meanwhile.
    let config = client_config().context("the platform's root certificates cannot be used")?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?)
}

fn client_config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier::new(Arc::clone(&provider))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
