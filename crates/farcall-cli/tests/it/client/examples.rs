//! The examples in the help texts, run by a shell as they stand there, in the home of a user whose server runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{Outcome, accepted, ended};
use crate::rig::command::{Finished, farcall, spawn};
use crate::rig::program::Program;
use crate::rig::recorder::{Recorder, Reply};

/// Commands whose examples are run.
const COMMANDS: [&str; 7] = ["get", "list", "wait", "cancel", "retry", "completions", "man"];

/// The lines of a command's examples, without what is said about them.
fn examples(command: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let help = farcall(command.split(' ').chain(["--help"]))?.stdout;
    let (_, after) = help.split_once("Examples:\n").ok_or_else(|| format!("{command} has no examples"))?;
    let (block, _) = after.split_once("\n\n").unwrap_or((after, ""));
    assert!(block.lines().all(|line| line.starts_with("  farcall ")), "{command}: an example is broken over lines");
    let examples = block.lines();
    // Two spaces part the example from its explanation.
    let examples = examples.map(|line| line.trim().split("  ").next().unwrap_or_default().to_owned());
    Ok(examples.collect())
}

/// Runs a line by a shell that finds `farcall` by its name.
fn in_a_shell(line: &str, home: &Path) -> std::io::Result<Finished> {
    let program = Path::new(env!("CARGO_BIN_EXE_farcall"));
    let bin = program.parent().expect("the program is in a directory").display();
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("set -e; cd; PATH={bin}:$PATH; {line}")]);
    spawn(shell, [("HOME", home.to_str().expect("it is text"))])?.finish()
}

#[test]
fn every_example_works_as_it_stands_there() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let home = tempfile::tempdir()?;
    let dir = home.path().join(".farcall");
    fs::create_dir(&dir)?;
    let _program = Program::serve(&dir)?;
    for command in COMMANDS {
        let examples = examples(command)?;
        assert!(examples.len() > 1, "{command}");
        for example in examples {
            // What is cancelled must not have ended; everything else is about calls that have.
            let id = match command {
                "cancel" => accepted(&dir, &json!({"url": upstream.url(), "delay": 3600}))?,
                _ => ended(&dir, &upstream)?,
            };
            let finished = in_a_shell(&example.replace("ID", &id), home.path())?;
            assert_eq!(finished.code, Some(0), "{example}: {}", finished.stderr);
            assert_eq!(finished.stderr, "", "{example}");
        }
    }
    Ok(())
}
