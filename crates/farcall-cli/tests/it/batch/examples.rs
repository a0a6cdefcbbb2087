//! The examples in the help text of `farcall batch`, each run as it stands there.

use std::fs;
use std::process::{Command, Stdio};

use super::{Desk, Outcome, post, states};
use crate::rig::command::farcall;
use crate::rig::recorder::{Recorder, Reply};

#[test]
fn every_example_of_the_help_runs() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let help = farcall(["batch", "--help"])?.stdout;
    let examples: Vec<&str> = help.lines().map(str::trim).filter(|line| line.contains("farcall batch ")).collect();
    let examples: Vec<&str> = examples.into_iter().filter(|line| !line.starts_with("Usage:")).collect();
    assert!(examples.len() >= 5, "{help}");
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_farcall"));
    let programs = program.parent().expect("a program lies in a folder").display().to_string();
    for example in examples {
        let desk = Desk::with_posts(&upstream, 3)?;
        fs::copy(desk.path("calls.ndjson"), desk.path("paths.ndjson"))?;
        fs::create_dir(desk.path(".farcall"))?;
        let words = example.replace("http://localhost:8080", &upstream.url());
        let mut shell = Command::new("sh");
        shell.args(["-c", &words]).current_dir(desk.folder.path()).stdin(Stdio::null());
        shell.env("PATH", format!("{programs}:{}", std::env::var("PATH")?)).env("TMPDIR", desk.folder.path());
        shell.env("HOME", desk.folder.path());
        let output = shell.output()?;
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(states(&desk.results("results.ndjson")?), ["succeeded"; 3], "{words}");
    }
    Ok(())
}

#[test]
fn the_call_in_the_help_is_one() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let help = farcall(["batch", "--help"])?.stdout;
    let (_, call) = help.split_once("as in a call file:\n").expect("the help shows a line");
    let call = call.lines().next().unwrap_or_default().replace("https://api.example.com", &upstream.url());
    let desk = Desk::with([call, post(&upstream, 2)])?;
    assert_eq!(desk.start("--out @/results.ndjson")?.finish()?.code, Some(0));
    assert_eq!(upstream.arrivals().iter().filter(|arrival| arrival.path == "/orders").count(), 1);
    Ok(())
}
