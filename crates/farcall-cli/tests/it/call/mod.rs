//! `farcall call`: one call now, here or by a server; the body on stdout, everything else on stderr.

mod examples;
mod here;
mod there;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::rig::recorder::{Recorder, Reply};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Runs `farcall call` with these words, in this folder, which is its home too.
fn call(folder: &Path, words: &[&str]) -> std::io::Result<Output> {
    command(folder, words).output()
}

fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farcall"));
    command.arg("call").args(words).env_clear().env("HOME", folder).env("TMPDIR", folder);
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// The same with something on standard input.
fn call_with(folder: &Path, words: &[&str], input: &[u8]) -> std::io::Result<Output> {
    let path = folder.join(".stdin");
    File::create(&path)?.write_all(input)?;
    command(folder, words).stdin(File::open(path)?).output()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Answers 200, or what the path says.
fn upstream() -> std::io::Result<Recorder> {
    Recorder::start(|arrival, _| {
        let status = arrival.path.trim_start_matches('/').parse().unwrap_or(200);
        let mut reply = Reply::new(status);
        reply.body = "{\n \"ok\": true }\n".to_owned();
        reply.headers.push(("x-own", "yes".to_owned()));
        reply
    })
}
