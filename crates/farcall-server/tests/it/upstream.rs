//! An upstream on loopback that answers every request with the same bytes and closes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::http::bounded;

/// Gone when dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Upstream {
    /// `answer` is a whole answer that says `connection: close`; requests must fit into one read.
    pub(crate) async fn start(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let listening = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut request = vec![0; 64 << 10];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&answer).await;
            }
        });
        Self { address, connections, listening }
    }

    /// Answers only once told so; each answer takes one word.
    pub(crate) async fn gated(answer: &'static str) -> (Self, mpsc::UnboundedSender<()>) {
        let (open, mut gate) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let listening = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 64 << 10];
                let _ = stream.read(&mut request).await;
                counted.fetch_add(1, Ordering::Relaxed);
                if gate.recv().await.is_some() {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        (Self { address, connections, listening }, open)
    }

    /// Waits until so many requests have come.
    pub(crate) async fn until_asked(&self, count: usize) {
        let asked = async {
            while self.connections() < count {
                tokio::task::yield_now().await;
            }
        };
        bounded(asked).await;
    }

    /// How many there have been.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.listening.abort();
    }
}
