//! Pipes, full disks, and files that cannot be read or written.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Desk, Outcome, exists, lines, parsed, post, states};
use crate::rig::program::Program;
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::until;

/// The program with its own streams, in the folder of the desk.
fn command(desk: &Desk, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farcall"));
    command.arg("batch").args(words).env_clear().env("HOME", desk.path("home")).env("TMPDIR", desk.folder.path());
    command.current_dir(desk.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_full_disk_ends_it_with_7_and_nothing_is_sent_twice() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let desk = Desk::with_posts(&upstream, 20)?;
    let full = desk.start("--out /dev/full")?.finish()?;
    assert_eq!(full.code, Some(7), "{}", full.stderr);
    assert!(full.stderr.contains("cannot write results: No space left"), "{}", full.stderr);
    let finished = desk.start("")?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(lines(&parsed(&finished.stdout)?), (1..=20).collect::<Vec<_>>());
    assert_eq!(upstream.arrivals().len(), 20);
    Ok(())
}

#[test]
fn what_cannot_be_opened_is_a_usage_error_and_nothing_is_sent() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let desk = Desk::with_posts(&upstream, 2)?;
    for words in [
        "--out @/nowhere/results.ndjson",
        "--out @",
        "--rate fast",
        "--rate 0/1s",
        "--concurrency 0",
        "--output json",
        "--output table",
    ] {
        let finished = desk.start(words)?.finish()?;
        assert_eq!(finished.code, Some(2), "{words}: {}", finished.stderr);
    }
    for input in ["missing.ndjson", "."] {
        let status = command(&desk, &[input]).status()?;
        assert_eq!(status.code(), Some(2), "{input}");
    }
    let names: Vec<_> = fs::read_dir(desk.folder.path())?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["calls.ndjson"], "nothing was made");
    assert_eq!(upstream.arrivals().len(), 0);
    Ok(())
}

#[test]
fn a_reader_that_goes_away_interrupts_it_and_the_rest_can_be_had_later() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(5)))?;
    let desk = Desk::with_posts(&upstream, 300)?;
    let mut child = command(&desk, &["calls.ndjson", "--concurrency", "2"]).stdout(Stdio::piped()).spawn()?;
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut first)?;
    assert_eq!(lines(&parsed(&first)?), [1]);
    let status = until("the batch's end", || child.try_wait().transpose())?;
    assert_eq!(status.code(), Some(130));
    assert!(upstream.arrivals().len() < 300, "it went on for nobody");
    let finished = desk.start("")?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(lines(&parsed(&finished.stdout)?), (1..=300).collect::<Vec<_>>());
    assert_eq!(upstream.arrivals().len(), 300);
    Ok(())
}

#[test]
fn lines_from_a_pipe_are_sent_as_they_come_and_go_on_after_a_kill() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let desk = Desk::with([])?;
    let spawn = || command(&desk, &["-", "--out", "results.ndjson"]).stdin(Stdio::piped()).spawn();
    let mut child = spawn()?;
    let mut pipe = child.stdin.take().expect("it is piped");
    for number in 1..=3 {
        writeln!(pipe, "{}", post(&upstream, number))?;
        until("its result", || (desk.results("results.ndjson").ok()?.len() == number as usize).then_some(()));
    }
    child.kill()?;
    child.wait()?;
    let mut child = spawn()?;
    let mut pipe = child.stdin.take().expect("it is piped");
    (1..=5).try_for_each(|number| writeln!(pipe, "{}", post(&upstream, number)))?;
    drop(pipe);
    assert_eq!(until("the batch's end", || child.try_wait().transpose())?.code(), Some(0));
    assert_eq!(lines(&desk.results("results.ndjson")?), [1, 2, 3, 4, 5]);
    assert_eq!(upstream.arrivals().len(), 5);

    let mut other =
        command(&desk, &["-", "--out", "results.ndjson"]).stdin(File::open(desk.path("calls.ndjson"))?).spawn()?;
    assert_eq!(until("the batch's end", || other.try_wait().transpose())?.code(), Some(4), "another input");
    Ok(())
}

#[test]
fn a_directory_that_is_not_there_is_not_made() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let desk = Desk::with_posts(&upstream, 2)?;
    let refused = desk.start("--dir @/typo")?.finish()?;
    assert_eq!(refused.code, Some(7), "{}", refused.stderr);
    assert!(refused.stderr.contains("there is no directory"), "{}", refused.stderr);
    assert_eq!((exists(&desk.path("typo")), upstream.arrivals().len()), (false, 0));
    Ok(())
}

#[test]
fn in_a_directory_it_uses_its_configuration_and_its_store() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let desk = Desk::with(["{\"upstream\": \"api\", \"end_point\": \"/x\"}".to_owned(), post(&upstream, 2)])?;
    let dir = desk.path("calls");
    fs::create_dir(&dir)?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\", headers: {{ x-own: yes }} }}\n", upstream.url());
    fs::write(dir.join("farcall.yml"), config)?;
    fs::write(dir.join("left.json"), "{\"upstream\": \"api\"}")?;
    let program = Program::serve(&dir)?;
    until("the call file", || dir.join("requests/left.json").exists().then_some(()));
    assert_eq!(program.terminate()?.code(), Some(0));
    fs::write(dir.join("left.json"), "{\"upstream\": \"api\"}")?;

    let finished = desk.start("--dir @/calls --out @/results.ndjson")?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(states(&desk.results("results.ndjson")?), ["succeeded", "succeeded"]);
    assert!(upstream.arrivals().iter().all(|arrival| arrival.header("x-own") == Some("yes")));
    assert!(dir.join("left.json").exists(), "a batch takes no call files");
    assert!(!exists(&desk.path("results.ndjson.farcall")));

    let program = Program::serve(&dir)?;
    until("the file that was left, beside the calls of the batch", || {
        let health = program.health().ok()?;
        (health["accepted"] == 4 && health["calls"]["succeeded"] == 4).then_some(())
    });
    let again = desk.start("--dir @/calls --out @/results.ndjson")?.finish()?;
    assert!(again.stderr.contains("has ended already"), "with a server as without: {}", again.stderr);
    assert_eq!(program.terminate()?.code(), Some(0));
    let again = desk.start("--dir @/calls --out @/results.ndjson")?.finish()?;
    assert!(again.stderr.contains("has ended already"), "{}", again.stderr);
    Ok(())
}
