//! The HTTP face beside an engine: bound before the engine starts, so that nothing is sent when it cannot be.
//!
//! What it answers is `farcall-server`'s.

use std::net::SocketAddr;
use std::path::PathBuf;

use farcall_engine::Handle;
use farcall_server::{BindError, Listeners, Options, Server};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};
use crate::session::Opened;

/// Listening, and not served yet.
#[derive(Debug)]
pub(crate) struct Bound {
    listeners: Listeners,
    options: Options,
}

/// A face that answers.
#[derive(Debug)]
pub(crate) struct Api {
    /// Where, unless there is only the socket.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) socket: PathBuf,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Bound {
    /// Binds the address and the socket of a directory.
    ///
    /// # Errors
    /// With exit code 2 for the address, 7 for the socket.
    pub(crate) async fn bind(opened: &Opened) -> Result<Self, Failure> {
        let options = Options::new(&opened.directory);
        let listeners = Listeners::bind(&opened.config.server, &options.socket).await.map_err(bind_failure)?;
        Ok(Self { listeners, options })
    }

    /// Answers from now on.
    pub(crate) fn serve(self, handle: Handle) -> Api {
        let server = Server::new(self.listeners, handle, self.options);
        let (address, socket) = (server.local_addr(), server.socket_path().to_owned());
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(server.run(shutdown.clone()));
        Api { address, socket, shutdown, serving }
    }
}

impl Api {
    /// Lets requests in flight finish; the socket is gone then.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        if let Err(error) = self.serving.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

fn bind_failure(error: BindError) -> Failure {
    match &error {
        BindError::AddressInUse { .. } => Failure::new(Exit::Usage, error)
            .with_hint("choose another with --listen, or --listen none for the socket only"),
        BindError::NotLoopback { .. } | BindError::Unresolved { .. } | BindError::Listen { .. } => {
            Failure::new(Exit::Usage, error)
        }
        BindError::SocketInUse { .. } | BindError::Socket { .. } => Failure::directory(error),
    }
}
