//! Where requests come in: a TCP port and the socket beside the store, bound before anything is served.
//!
//! Without tokens only loopback addresses are bound. The socket is made in a folder that only its owner may enter, gets
//! its mode there and takes its place by a rename: whatever the umask, nobody ever finds one that others may open, and
//! what an earlier process left is replaced in the same step.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use farcall_engine::config::{self, Listen};
use tokio::net::{TcpListener, UnixListener, UnixStream, lookup_host};
use tokio::time::timeout;

/// The longest path that fits into a socket address of Linux (`sun_path` holds 108 bytes, one of them the end).
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// How long a socket that is there already may take to prove that somebody serves it.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Bound, and not served yet: connections wait.
#[derive(Debug)]
pub struct Listeners {
    pub(crate) tcp: Option<TcpListener>,
    pub(crate) socket: Socket,
}

/// Why there is nothing to listen on. All but the last two are mistakes of whoever configured it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("without server.tokens farcall listens on loopback addresses only, and {listen} is {address}")]
    NotLoopback { listen: String, address: SocketAddr },
    #[error("{listen} is in use by another program")]
    AddressInUse { listen: String },
    #[error("cannot find the address of {listen}")]
    Unresolved {
        listen: String,
        #[source]
        source: io::Error,
    },
    /// Another farcall serves this directory.
    #[error("the socket {} is in use by another farcall", path.display())]
    SocketInUse { path: PathBuf },
    #[error("cannot listen on {listen}")]
    Listen {
        listen: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot make the socket {}", path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The socket; its file goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file of another process is left alone.
    identity: (u64, u64),
}

impl Listeners {
    /// Binds what `server` asks for, and the socket `socket`, whose directory is made with mode 0700 when it is
    /// missing. To be called while the store's lock is held.
    ///
    /// # Errors
    /// When either cannot be bound; then neither is.
    pub async fn bind(server: &config::Server, socket: &Path) -> Result<Self, BindError> {
        let tcp = match &server.listen {
            Listen::None => None,
            Listen::Address(listen) => Some(bind_tcp(listen, server.tokens.is_empty()).await?),
        };
        Ok(Self { tcp, socket: Socket::bind(socket).await? })
    }

    /// The TCP address, with the port that the system chose when 0 was asked for.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

async fn bind_tcp(listen: &str, only_loopback: bool) -> Result<TcpListener, BindError> {
    let unresolved = |source| BindError::Unresolved { listen: listen.to_owned(), source };
    let addresses: Vec<SocketAddr> = lookup_host(listen).await.map_err(unresolved)?.collect();
    if only_loopback && let Some(&address) = addresses.iter().find(|address| !address.ip().is_loopback()) {
        return Err(BindError::NotLoopback { listen: listen.to_owned(), address });
    }
    TcpListener::bind(addresses.as_slice()).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::AddressInUse { listen: listen.to_owned() },
        _ => BindError::Listen { listen: listen.to_owned(), source },
    })
}

impl Socket {
    async fn bind(path: &Path) -> Result<Self, BindError> {
        if is_served(path).await {
            return Err(BindError::SocketInUse { path: path.to_owned() });
        }
        Self::replace(path).map_err(|source| BindError::Socket { path: path.to_owned(), source })
    }

    fn replace(path: &Path) -> io::Result<Self> {
        let no_place = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file in a directory");
        let directory = path.parent().ok_or_else(no_place)?;
        let name = path.file_name().ok_or_else(no_place)?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut workshop = directory.join(name).into_os_string();
        workshop.push(".new");
        let workshop = PathBuf::from(workshop);
        let unfinished = workshop.join("s");
        remove(std::fs::remove_file(&unfinished))?;
        remove(std::fs::remove_dir(&workshop))?;
        std::fs::DirBuilder::new().mode(0o700).create(&workshop)?;
        let listener = bind_in(&workshop, &unfinished)?;
        std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&unfinished, path)?;
        std::fs::remove_dir(&workshop)?;
        let metadata = path.symlink_metadata()?;
        Ok(Self { listener, file: SocketFile { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) } })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }
}

/// What an earlier process may have left is removed, or was not there.
fn remove(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// A path that is too long for a socket address is gone to through the directory's descriptor.
fn bind_in(directory: &Path, path: &Path) -> io::Result<UnixListener> {
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return UnixListener::bind(path);
    }
    let directory = open_directory(directory)?;
    UnixListener::bind(through(&directory, path))
}

/// Whether a process accepts connections there. One that only has its queue full is there too.
async fn is_served(path: &Path) -> bool {
    let connected = if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        timeout(PROBE_TIMEOUT, UnixStream::connect(path)).await
    } else {
        let Some(directory) = path.parent().and_then(|directory| open_directory(directory).ok()) else { return false };
        timeout(PROBE_TIMEOUT, UnixStream::connect(through(&directory, path))).await
    };
    connected.map_or(true, |connected| connected.is_ok())
}

fn open_directory(path: &Path) -> io::Result<std::fs::File> {
    let flags = i32::try_from((rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC).bits());
    std::fs::OpenOptions::new().read(true).custom_flags(flags.expect("flags are small numbers")).open(path)
}

/// The same file, by a short path that holds while `directory` is open.
fn through(directory: &std::fs::File, path: &Path) -> PathBuf {
    let directory = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    path.file_name().map_or_else(|| directory.clone(), |name| directory.join(name))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let identity = self.path.symlink_metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        if identity.is_ok_and(|identity| identity == self.identity) {
            // Nothing is lost by a file that stays: the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
