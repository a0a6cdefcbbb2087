//! The program as a process, and a client for its socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{PATIENCE, until};

/// `farcall serve DIR` without a TCP port; killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    dir: PathBuf,
}

/// An answer of the API.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Program {
    /// Starts the server and waits until it answers.
    pub(crate) fn serve(dir: &Path) -> std::io::Result<Self> {
        let program = Self::spawn(dir)?;
        until("the server's health", || get(dir, "/healthz").ok().filter(|health| health.status == 200));
        Ok(program)
    }

    /// Starts the server and waits for nothing.
    pub(crate) fn spawn(dir: &Path) -> std::io::Result<Self> {
        let child = Command::new(env!("CARGO_BIN_EXE_farcall"))
            .args(["serve", "--listen", "none"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::OpenOptions::new().create(true).append(true).open(dir.join(".serve.log"))?)
            .spawn()?;
        Ok(Self { child, dir: dir.to_owned() })
    }

    pub(crate) fn kill(mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Asks it to end, waits, and gives its exit status.
    pub(crate) fn terminate(mut self) -> std::io::Result<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        self.child.wait()
    }

    pub(crate) fn health(&self) -> std::io::Result<Value> {
        get(&self.dir, "/healthz").map(|answer| answer.body)
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

fn request(dir: &Path, text: &str) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(dir.join(".farcall/farcall.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let broken = || std::io::Error::other(format!("no whole answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    Ok(Answer { status, body: serde_json::from_str(body).map_err(|_| broken())? })
}
