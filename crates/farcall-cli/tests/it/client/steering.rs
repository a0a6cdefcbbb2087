//! Listing calls of the real server, cancelling them, making them anew, by id and by filter.

use std::path::Path;

use serde_json::{Value, json};

use super::{NOBODY, Outcome, accepted, client, ended, lines, text};
use crate::rig::program::Program;
use crate::rig::recorder::{Recorder, Reply};

/// The ids of a list.
fn listed(dir: &Path, flags: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let finished = client(&format!("list -q {flags}"), &["--dir", text(dir)])?;
    assert_eq!(finished.code, Some(0), "{flags}: {}", finished.stderr);
    Ok(finished.stdout.lines().map(str::to_owned).collect())
}

/// A call that waits for an hour.
fn waiting(dir: &Path, upstream: &Recorder, tag: &str) -> std::io::Result<String> {
    accepted(dir, &json!({"url": upstream.url(), "delay": 3600, "tags": [tag]}))
}

#[test]
fn calls_are_listed_newest_first_by_what_is_asked_of_them() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let first = ended(dir.path(), &upstream)?;
    let second = waiting(dir.path(), &upstream, "a&b")?;
    let third = waiting(dir.path(), &upstream, "c")?;
    let check = |flags: &str, expected: &[&String]| -> Outcome {
        assert_eq!(listed(dir.path(), flags)?.iter().collect::<Vec<_>>(), expected, "{flags}");
        Ok(())
    };
    check("", &[&third, &second, &first])?;
    check("--limit 1", &[&third])?;
    check("--state scheduled", &[&third, &second])?;
    check("--state succeeded,scheduled --tag a&b", &[&second])?;
    check("--since 1h", &[&third, &second, &first])?;
    check("--until 1h", &[])?;
    check("--source inbox", &[])?;

    let page = client("list --limit 2", &["--dir", text(dir.path())])?;
    let (_, cursor) = page.stderr.trim_end().rsplit_once("--cursor ").ok_or("it tells no cursor")?;
    check(&format!("--cursor {cursor}"), &[&first])?;
    let wrong = client("list --state lost", &["--dir", text(dir.path())])?;
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(2), ""));
    assert!(wrong.stderr.contains("422 invalid_filter, key state"), "{}", wrong.stderr);
    Ok(())
}

#[test]
fn many_pages_are_one_list() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let mut ids = (0..1_050).map(|_| waiting(dir.path(), &upstream, "many")).collect::<Result<Vec<_>, _>>()?;
    ids.reverse();
    assert_eq!(listed(dir.path(), "--all")?, ids);
    let document = client("list --limit 1001 --output json", &["--dir", text(dir.path())])?.stdout;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&document)?.len(), 1_001);
    Ok(())
}

#[test]
fn a_cancelled_call_is_never_sent_and_cancelling_it_again_is_4() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let on = |line: String| client(&line, &["--dir", text(dir.path())]);
    let ids = [waiting(dir.path(), &upstream, "x")?, waiting(dir.path(), &upstream, "x")?];

    let cancelled = on(format!("cancel {}", ids[0]))?;
    assert_eq!((cancelled.code, &lines(&cancelled.stdout)[0]["state"]), (Some(0), &json!("cancelled")));
    let again = on(format!("cancel {} {NOBODY} {}", ids[0], ids[1]))?;
    assert_eq!(again.code, Some(4), "{}", again.stderr);
    assert!(again.stderr.contains("409 already_ended") && again.stderr.contains("404 not_found"), "{}", again.stderr);
    assert_eq!(lines(&again.stdout)[0]["id"], ids[1].as_str(), "the last one was cancelled all the same");
    assert_eq!(on(format!("wait {}", ids.join(" ")))?.code, Some(0), "cancelled is no failure");
    assert!(upstream.arrivals().is_empty());
    Ok(())
}

#[test]
fn a_retry_is_a_call_of_its_own() -> Outcome {
    let upstream = Recorder::start(|_, before| Reply::new(if before == 0 { 404 } else { 200 }))?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let on = |line: String| client(&line, &["--dir", text(dir.path())]);
    let failed = ended(dir.path(), &upstream)?;
    let retried = on(format!("retry {failed} -q"))?;
    assert_eq!(retried.code, Some(0), "{}", retried.stderr);
    let new = retried.stdout.trim_end();
    assert_ne!(new, failed);
    let waited = on(format!("wait {failed} {new}"))?;
    assert_eq!(waited.code, Some(1), "the old one keeps its end");
    let calls = lines(&waited.stdout);
    let retry = calls.iter().find(|call| call["id"] == new).ok_or("it is there")?;
    assert_eq!((&retry["state"], &retry["retry_of"]), (&json!("succeeded"), &json!(failed)));
    let early = waiting(dir.path(), &upstream, "x")?;
    assert_eq!(on(format!("retry {early}"))?.code, Some(4), "it has not ended");
    Ok(())
}

#[test]
fn all_that_fit_are_cancelled_by_one_operation() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let on = |line: &str| client(line, &["--dir", text(dir.path())]);
    for number in 0..20 {
        waiting(dir.path(), &upstream, if number % 2 == 0 { "even" } else { "odd" })?;
    }
    let dry = on("cancel --tag even --dry-run")?;
    let operation = &lines(&dry.stdout)[0];
    assert_eq!((dry.code, &operation["state"], &operation["total"]), (Some(0), &json!("done"), &json!(10)));
    assert_eq!(listed(dir.path(), "--state cancelled")?.len(), 0, "nothing was done");
    let done = on("cancel --tag even")?;
    assert_eq!((done.code, &lines(&done.stdout)[0]["done"]), (Some(0), &json!(10)), "{}", done.stderr);
    assert_eq!(listed(dir.path(), "--state cancelled")?.len(), 10);
    assert_eq!(listed(dir.path(), "--state cancelled --tag odd")?.len(), 0);
    Ok(())
}

#[test]
fn the_answers_bytes_are_its_own() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply { body: "a\u{0}\r\n{ \u{1b}é".to_owned(), ..Reply::new(200) })?;
    let dir = tempfile::tempdir()?;
    let _program = Program::serve(dir.path())?;
    let id = ended(dir.path(), &upstream)?;
    let on = |line: String| client(&line, &["--dir", text(dir.path())]);
    assert_eq!(on(format!("get {id} --response"))?.stdout, "a\u{0}\r\n{ \u{1b}é");
    let early = waiting(dir.path(), &upstream, "x")?;
    let refused = on(format!("get {early} --response"))?;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(4), ""), "{}", refused.stderr);
    Ok(())
}
