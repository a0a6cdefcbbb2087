//! The program as a process, and a client for its socket.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use farcall_crash::Point;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{PATIENCE, until};

/// How a server is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    dir: PathBuf,
    /// Words before the program's own: something that becomes the program, keeping its process id.
    wrapper: Vec<OsString>,
    trap: Option<String>,
    listen: &'static str,
    log: PathBuf,
}

/// `farcall serve DIR` without a TCP port; killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    dir: PathBuf,
    log: PathBuf,
}

/// An answer of the API.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Launch {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), wrapper: Vec::new(), trap: None, listen: "none", log: dir.join(".serve.log") }
    }

    /// What it says goes to this file, for example because the directory's file system will go away.
    pub(crate) fn logging_to(self, log: &Path) -> Self {
        Self { log: log.to_owned(), ..self }
    }

    /// Started by these words, for example `prlimit --nofile=256`.
    pub(crate) fn wrapped<W: Into<OsString>>(self, words: impl IntoIterator<Item = W>) -> Self {
        Self { wrapper: words.into_iter().map(Into::into).collect(), ..self }
    }

    /// Dies when it reaches this point for the nth time.
    pub(crate) fn dying_at(self, point: Point, nth: u32) -> Self {
        Self { trap: Some(format!("{}@{nth}", point.name())), ..self }
    }

    /// Stands still when it reaches this point for the nth time.
    pub(crate) fn stopping_at(self, point: Point, nth: u32) -> Self {
        Self { trap: Some(format!("{}@{nth}:stop", point.name())), ..self }
    }

    /// Panics when it reaches this point for the nth time.
    pub(crate) fn panicking_at(self, point: Point, nth: u32) -> Self {
        Self { trap: Some(format!("{}@{nth}:panic", point.name())), ..self }
    }

    /// Panics whenever it reaches this point with something of this name.
    pub(crate) fn panicking_on(self, point: Point, name: &str) -> Self {
        Self { trap: Some(format!("{}={name}:panic", point.name())), ..self }
    }

    /// Listens on TCP, too, at an address that [`Program::address`] tells.
    pub(crate) fn listening(self) -> Self {
        Self { listen: "127.0.0.1:0", ..self }
    }

    /// Starts the server and waits for nothing.
    pub(crate) fn spawn(&self) -> std::io::Result<Program> {
        let program = OsString::from(env!("CARGO_BIN_EXE_farcall"));
        let mut words = self.wrapper.iter().chain([&program]);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(words.next().expect("at least the program itself"));
        command.args(words).args(["serve", "--listen", self.listen]).arg(&self.dir);
        command.envs(self.trap.iter().map(|trap| ("FARCALL_CRASH", trap)));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        Ok(Program { child, dir: self.dir.clone(), log: self.log.clone() })
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn serve(&self) -> std::io::Result<Program> {
        let mut program = self.spawn()?;
        until("the server's health", || {
            let ended = program.child.try_wait().expect("our own child");
            assert!(ended.is_none(), "the server ended with {ended:?}: {}", program.log());
            get(&self.dir, "/healthz").ok().filter(|health| health.status == 200)
        });
        Ok(program)
    }
}

impl Program {
    /// Starts the server and waits until it answers.
    pub(crate) fn serve(dir: &Path) -> std::io::Result<Self> {
        Launch::new(dir).serve()
    }

    pub(crate) fn kill(mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Asks it to end, waits, and gives its exit status.
    pub(crate) fn terminate(mut self) -> std::io::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.child.wait()
    }

    pub(crate) fn signal(&self, signal: Signal) -> std::io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Its end, if it has come.
    pub(crate) fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> std::io::Result<ExitStatus> {
        until("the program's end", || self.child.try_wait().transpose())
    }

    /// Whether a trap or a signal made it stand still.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory that it holds and nobody could take from it, in KiB: without the program's file and the page cache.
    pub(crate) fn private_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(u64::MAX)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        until("a server to say where it listens", || {
            let log = self.log();
            let (_, after) = log.split_once("listen=")?;
            Some(after.split_once(' ')?.0.trim_matches('"').to_owned())
        })
    }

    pub(crate) fn health(&self) -> std::io::Result<Value> {
        get(&self.dir, "/healthz").map(|answer| answer.body)
    }

    /// What all servers of this directory have said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn get(dir: &Path, path: &str) -> std::io::Result<Answer> {
    request(dir, &format!("GET {path} HTTP/1.1\r\nhost: farcall\r\nconnection: close\r\n\r\n"))
}

pub(crate) fn post_call(dir: &Path, call: &Value) -> std::io::Result<Answer> {
    let body = call.to_string();
    let head = "POST /v1/calls HTTP/1.1\r\nhost: farcall\r\nconnection: close\r\ncontent-type: application/json";
    request(dir, &format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

/// A request with another method, and a body of JSON if there is one.
pub(crate) fn send(dir: &Path, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Answer> {
    let body = body.map(ToString::to_string).unwrap_or_default();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: farcall\r\nconnection: close");
    request(dir, &format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

/// The same with these header lines, each ending in CRLF; the answer's head and body, as they came.
pub(crate) fn send_raw(dir: &Path, target: &str, headers: &str, body: &str) -> std::io::Result<(String, String)> {
    let head = format!("{target} HTTP/1.1\r\nhost: farcall\r\nconnection: close\r\n{headers}");
    exchange(dir, &format!("{head}content-length: {}\r\n\r\n{body}", body.len()))
}

fn request(dir: &Path, text: &str) -> std::io::Result<Answer> {
    let (head, body) = exchange(dir, text)?;
    let broken = || std::io::Error::other(format!("no whole answer: {head:?} {body:?}"));
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    Ok(Answer { status, body: serde_json::from_str(&body).map_err(|_| broken())? })
}

fn exchange(dir: &Path, text: &str) -> std::io::Result<(String, String)> {
    let mut stream = UnixStream::connect(dir.join(".farcall/farcall.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || std::io::Error::other(format!("no whole answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    Ok((head.to_owned(), body.to_owned()))
}
