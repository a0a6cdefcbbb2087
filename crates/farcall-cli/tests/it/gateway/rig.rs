//! A gateway with its configuration, clients that send what a test writes, and upstreams that answer what it writes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;

use crate::rig::program::{Launch, Program};
use crate::rig::{PATIENCE, until};

pub(super) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A server that listens, in a directory of its own.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) home: tempfile::TempDir,
    pub(super) program: Program,
    pub(super) address: String,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    read: Vec<u8>,
}

/// The head of an answer, and what came of its body.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// An upstream whose every byte a test decides. Its threads end with the test's process.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    closed: Arc<Mutex<u32>>,
}

/// A request at a peer, its body not read yet.
pub(super) struct Arrived<'a> {
    /// Request line and fields, names as they came.
    pub(super) head: &'a str,
    pub(super) number: usize,
    peer: &'a Peer,
    stream: &'a mut TcpStream,
}

type Answer = dyn Fn(&mut Arrived<'_>) -> std::io::Result<()> + Send + Sync;

impl Gateway {
    pub(super) fn open(config: &str) -> std::io::Result<Self> {
        let home = tempfile::tempdir()?;
        std::fs::write(home.path().join("farcall.yml"), config)?;
        let program = Launch::new(home.path()).listening().serve()?;
        let address = program.address();
        Ok(Self { home, program, address })
    }

    /// One whose only upstream, `api`, is this peer, below `/base`.
    pub(super) fn before(peer: &Peer) -> std::io::Result<Self> {
        Self::open(&format!("upstreams: {{ api: {{ base_url: \"{}/base\" }} }}\n", peer.url()))
    }

    pub(super) fn connect(&self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, read: Vec::new() })
    }

    /// The answer to a request as written, but for LF in place of CR LF, on a connection of its own.
    pub(super) fn ask(&self, request: &str) -> std::io::Result<Reply> {
        let mut connection = self.connect()?;
        connection.send(request)?;
        connection.reply()
    }

    pub(super) fn get(&self, path: &str) -> std::io::Result<Reply> {
        self.ask(&format!("GET {path} HTTP/1.1\nhost: localhost\n\n"))
    }

    /// Another configuration, once it holds.
    pub(super) fn reconfigure(&self, config: &str) -> std::io::Result<()> {
        let applied = || self.program.log().matches("the changed configuration is applied").count();
        let before = applied();
        std::fs::write(self.home.path().join("farcall.yml"), config)?;
        until("the changed configuration", || (applied() > before).then_some(()));
        Ok(())
    }
}

impl Connection {
    /// Sends a request as written, but for LF in place of CR LF.
    pub(super) fn send(&mut self, request: &str) -> std::io::Result<()> {
        self.stream.write_all(request.replace('\n', "\r\n").as_bytes())
    }

    /// The next answer, whole.
    pub(super) fn reply(&mut self) -> std::io::Result<Reply> {
        let mut reply = self.head()?;
        if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk()? {
                reply.body.extend(chunk);
            }
        } else if let Some(length) = reply.header("content-length") {
            let length = length.parse().map_err(std::io::Error::other)?;
            self.fill(|read| (read.len() >= length).then_some(length))?;
            reply.body = self.read.drain(..length).collect();
        }
        Ok(reply)
    }

    /// Status and fields of the next answer.
    pub(super) fn head(&mut self) -> std::io::Result<Reply> {
        let end = self.fill(|read| read.windows(4).position(|four| four == b"\r\n\r\n"))? + 4;
        let head = String::from_utf8(self.read.drain(..end).collect()).map_err(std::io::Error::other)?;
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let fields = lines.filter_map(|line| line.split_once(':'));
        let headers = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status: {head}")))?;
        Ok(Reply { status, headers, body: Vec::new() })
    }

    /// The next chunk; nothing for the last, whose trailers are left out.
    pub(super) fn chunk(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let end = self.fill(|read| read.windows(2).position(|two| two == b"\r\n"))?;
        let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end + 2);
        let length = usize::from_str_radix(&line, 16).map_err(std::io::Error::other)?;
        if length == 0 {
            return Ok(None);
        }
        self.fill(|read| (read.len() >= length + 2).then_some(length))?;
        Ok(Some(self.read.drain(..length + 2).take(length).collect()))
    }

    /// All that comes until the connection ends, and whether it ended in order.
    pub(super) fn rest(mut self) -> (Vec<u8>, bool) {
        let ended = self.stream.read_to_end(&mut self.read).is_ok();
        (self.read, ended)
    }

    /// How many bytes of the next body have come with what was read before.
    pub(super) fn buffered(&self) -> usize {
        self.read.len()
    }

    /// Nothing more will be sent or read.
    pub(super) fn hang_up(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn fill(&mut self, found: impl Fn(&[u8]) -> Option<usize>) -> std::io::Result<usize> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(position) = found(&self.read) {
                return Ok(position);
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => self.read.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// Status and code of a problem document.
    pub(super) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

impl Peer {
    /// Answers each request, whose head has been read, until that fails.
    pub(super) fn start(
        answer: impl Fn(&mut Arrived<'_>) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let peer = Self { address, heads: Arc::default(), bodies: Arc::default(), closed: Arc::default() };
        let (serving, answer) = (peer.clone(), Arc::new(answer) as Arc<Answer>);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (peer, answer) = (serving.clone(), Arc::clone(&answer));
                std::thread::spawn(move || peer.serve(stream, &*answer));
            }
        });
        Ok(peer)
    }

    /// One that answers every request with these bytes, but for LF in place of CR LF.
    pub(super) fn saying(text: &str) -> std::io::Result<Self> {
        let text = text.replace('\n', "\r\n");
        Self::start(move |arrived| {
            arrived.body()?;
            arrived.write(text.as_bytes())
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of all requests so far.
    pub(super) fn heads(&self) -> Vec<String> {
        locked(&self.heads).clone()
    }

    /// The bodies that were read.
    pub(super) fn bodies(&self) -> Vec<Vec<u8>> {
        locked(&self.bodies).clone()
    }

    /// How many clients were seen to leave while they were waited with.
    pub(super) fn closed(&self) -> u32 {
        *locked(&self.closed)
    }

    fn serve(&self, mut stream: TcpStream, answer: &Answer) {
        let _ = stream.set_nodelay(true);
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if !matches!(stream.read(&mut byte), Ok(1)) {
                    return;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).trim_end().to_owned();
            let number = {
                let mut heads = locked(&self.heads);
                heads.push(head.clone());
                heads.len() - 1
            };
            let mut arrived = Arrived { head: &head, number, peer: self, stream: &mut stream };
            if answer(&mut arrived).is_err() {
                return;
            }
        }
    }
}

impl Arrived<'_> {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(self.head, name)
    }

    /// Path and query as they came.
    pub(super) fn target(&self) -> &str {
        target(self.head)
    }

    pub(super) fn write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// An answer with a body of JSON.
    pub(super) fn reply(&mut self, status: u16, body: &str) -> std::io::Result<()> {
        let length = body.len();
        self.write(format!(
            "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    }

    /// Reads the body, whichever way it is framed.
    pub(super) fn body(&mut self) -> std::io::Result<()> {
        let mut body = Vec::new();
        if let Some(length) = self.header("content-length") {
            body.resize(length.parse().map_err(std::io::Error::other)?, 0);
            self.stream.read_exact(&mut body)?;
        } else if self.header("transfer-encoding").is_some() {
            while !body.ends_with(b"0\r\n\r\n") {
                let mut byte = [0];
                self.stream.read_exact(&mut byte)?;
                body.push(byte[0]);
            }
        }
        locked(&self.peer.bodies).push(body);
        Ok(())
    }

    /// The body that was read last, as text.
    pub(super) fn last_body(&self) -> String {
        String::from_utf8_lossy(locked(&self.peer.bodies).last().map_or(&[][..], Vec::as_slice)).into_owned()
    }

    /// Waits until the client leaves.
    pub(super) fn until_left(&mut self) -> std::io::Result<()> {
        let left = self.stream.read(&mut [0; 64]);
        if !matches!(left, Ok(1..)) {
            *locked(&self.peer.closed) += 1;
        }
        Err(std::io::ErrorKind::ConnectionAborted.into())
    }
}

/// The value of a field in a head.
pub(super) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

pub(super) fn target(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().expect("no connection panics while it records")
}
