//! What the server calls: answers everything, on loopback, with one of a few answers in turn.
//!
//! It speaks as a proxy as well, so that a call to any other host ends here too.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

const ANSWERS: [(&str, &str, &[u8]); 5] = [
    ("200 OK", "application/json", b"{\"ok\":true}"),
    ("200 OK", "text/plain; charset=utf-8", "ümlaut".as_bytes()),
    ("200 OK", "application/octet-stream", &[0, 159, 255]),
    ("404 Not Found", "application/json", b"{\"error\":\"none\"}"),
    ("500 Internal Server Error", "text/html", b"<p>no</p>"),
];

/// Gone when dropped, but for connections that are open.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Upstream {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let count = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let count = Arc::clone(&count);
                // One that breaks off has no answer to get.
                thread::spawn(move || stream.map(|stream| answer(stream, &count)));
            }
        });
        Ok(Self { address, is_over })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(mut stream: TcpStream, count: &AtomicUsize) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    reader.by_ref().take(length).read_to_end(&mut Vec::new())?;
    let (status, media_type, body) = ANSWERS[count.fetch_add(1, Ordering::Relaxed) % ANSWERS.len()];
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    )?;
    stream.write_all(body)?;
    stream.shutdown(Shutdown::Write)
}
