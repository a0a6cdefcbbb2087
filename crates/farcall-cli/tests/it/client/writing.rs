//! Completion scripts and manual pages: as shells and readers take them.

use std::io::Write;
use std::process::{Command, Stdio};

use super::Outcome;
use crate::rig::command::farcall;

const COMMANDS: [&str; 14] = [
    "serve",
    "run",
    "demo",
    "check",
    "init",
    "get",
    "list",
    "wait",
    "cancel",
    "retry",
    "explain",
    "upstreams",
    "completions",
    "man",
];

#[test]
fn bash_completes_commands_and_flags() -> Outcome {
    let script = farcall(["completions", "bash"])?;
    assert_eq!((script.code, script.stderr.as_str()), (Some(0), ""));
    let complete = |line: &str| -> Result<String, Box<dyn std::error::Error>> {
        let words: Vec<_> = line.split(' ').collect();
        let asked = format!(
            "COMP_WORDS=({line}); COMP_CWORD={}; _farcall farcall '{}' ''; echo \"${{COMPREPLY[@]}}\"",
            words.len() - 1,
            words.last().copied().unwrap_or_default()
        );
        let mut bash = Command::new("bash").arg("--norc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut stdin = bash.stdin.take().expect("it was asked for");
        write!(stdin, "{}\n{asked}\n", script.stdout)?;
        drop(stdin);
        Ok(String::from_utf8(bash.wait_with_output()?.stdout)?.trim().to_owned())
    };
    assert_eq!(complete("farcall ups")?, "upstreams");
    assert_eq!(complete("farcall upstreams pa")?, "pause");
    assert_eq!(complete("farcall list --sta")?, "--state");
    for command in COMMANDS {
        assert!(complete(&format!("farcall {command}"))?.split(' ').any(|word| word == command), "{command}");
    }
    Ok(())
}

#[test]
fn there_is_a_script_for_every_shell() -> Outcome {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = farcall(["completions", shell])?;
        assert_eq!(script.code, Some(0), "{shell}");
        assert!(script.stdout.contains("upstreams") && !script.stdout.contains("__launch"), "{shell}");
    }
    let unknown = farcall(["completions", "tcsh"])?;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(2), ""));
    Ok(())
}

#[test]
fn there_is_a_page_for_every_command() -> Outcome {
    let parent = tempfile::tempdir()?;
    let out = parent.path().join("share/man1");
    let finished = farcall(["man", "--out", out.to_str().expect("it is text")])?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for command in COMMANDS {
        let page = std::fs::read_to_string(out.join(format!("farcall-{command}.1")))?;
        assert_eq!(farcall(["man", command])?.stdout, page, "{command}");
        assert!(page.contains(&format!("farcall\\-{command}")), "{command}: {page}");
    }
    let page = farcall(["man"])?.stdout;
    assert_eq!(std::fs::read_to_string(out.join("farcall.1"))?, page);
    assert!(page.starts_with(".ie \\n(.g .ds Aq \\(aq\n") && page.contains(".TH farcall 1"), "{page}");
    assert_eq!(farcall(["man", "lsit"])?.code, Some(3));
    assert!(farcall(["man", "upstreams", "set"])?.stdout.contains(".TH farcall-upstreams-set 1"));
    Ok(())
}

#[test]
fn every_page_that_a_page_names_is_there() -> Outcome {
    let out = tempfile::tempdir()?;
    assert_eq!(farcall(["man", "--out", out.path().to_str().expect("it is text")])?.code, Some(0));
    let mut named = 0;
    for entry in std::fs::read_dir(out.path())? {
        let page = std::fs::read_to_string(entry?.path())?.replace('\\', "");
        for name in page.split_whitespace().filter_map(|word| word.strip_suffix("(1)")) {
            assert!(out.path().join(format!("{name}.1")).exists(), "{name}");
            named += 1;
        }
    }
    assert!(named > COMMANDS.len(), "{named}");
    Ok(())
}
