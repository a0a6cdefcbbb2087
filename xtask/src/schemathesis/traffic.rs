//! Calls of somebody else, ten in a second, so that there are events to follow and lists to look through.
//!
//! What becomes of them is nobody's business here.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::TOKEN;

/// Ends when dropped.
#[derive(Debug)]
pub(super) struct Traffic {
    is_over: Arc<AtomicBool>,
    sending: Option<JoinHandle<()>>,
}

impl Traffic {
    /// To the server at `port`, for `upstream`.
    pub(super) fn start(port: u16, upstream: &str) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, document) = (Arc::clone(&is_over), format!("{{\"url\": \"{upstream}/traffic\"}}"));
        let sending = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // A server that is gone is found out by those who look.
                let _ = post(port, &document);
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self { is_over, sending: Some(sending) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(sending) = self.sending.take() {
            let _ = sending.join();
        }
    }
}

fn post(port: u16, document: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let length = document.len();
    write!(
        stream,
        "POST /v1/calls HTTP/1.1\r\nhost: localhost\r\nfarcall-token: {TOKEN}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{document}"
    )?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}
