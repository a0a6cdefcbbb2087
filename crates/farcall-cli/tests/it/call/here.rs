//! Without a server: in process, once, kept nowhere.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Outcome, call, call_with, command, stderr, upstream};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::until;

#[test]
fn the_body_goes_to_stdout_byte_for_byte_and_nothing_else() -> Outcome {
    let (folder, upstream) = (tempfile::tempdir()?, upstream()?);
    let output = call(folder.path(), &[&upstream.url()])?;
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    assert_eq!(output.stdout, b"{\n \"ok\": true }\n");
    let arrivals = upstream.arrivals();
    assert_eq!((arrivals.len(), arrivals[0].method.as_str(), arrivals[0].path.as_str()), (1, "GET", "/"));
    assert_eq!(fs::read_dir(folder.path())?.count(), 0, "it leaves nothing behind");
    Ok(())
}

#[test]
fn what_is_typed_is_sent() -> Outcome {
    let (folder, upstream) = (tempfile::tempdir()?, upstream()?);
    let url = format!("{}/a?b=c", upstream.url());
    fs::write(folder.path().join("body"), b"\x00\xff\n")?;
    for words in [
        &["put", &url, "-H", "X-A: 1", "-H", "x-a: 2", "-d", "@body", "-H", "content-type: image/x", "-Q", "d=e f"][..],
        &[&url, "--json", "{\"b\": 1.0,\n\"a\": 2}"],
        &[&url, "-d", "a=b"],
    ] {
        let output = call(folder.path(), words)?;
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", stderr(&output));
    }
    let output = call_with(folder.path(), &["POST", &url, "-d", "-"], b"from stdin")?;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let arrivals = upstream.arrivals();
    let [put, json, form, stdin] = &arrivals[..] else { panic!("{arrivals:?}") };
    assert_eq!((put.method.as_str(), put.path.as_str()), ("PUT", "/a?b=c&d=e+f"));
    assert_eq!((put.header("x-a"), put.header("content-type")), (Some("1, 2"), Some("image/x")));
    assert_eq!(put.body, b"\x00\xff\n");
    assert_eq!((json.method.as_str(), json.header("content-type")), ("POST", Some("application/json")));
    assert_eq!(json.body, b"{\"b\": 1.0,\n\"a\": 2}");
    assert_eq!(form.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(stdin.body, b"from stdin");
    Ok(())
}

#[test]
fn status_and_headers_are_shown_when_asked_for() -> Outcome {
    let (folder, upstream) = (tempfile::tempdir()?, upstream()?);
    let output = call(folder.path(), &[&upstream.url(), "-i"])?;
    let shown = stderr(&output);
    assert!(shown.starts_with("HTTP 200\n") && shown.contains("\nx-own: yes\n"), "{shown}");
    assert_eq!(output.stdout, b"{\n \"ok\": true }\n");

    let output = call(folder.path(), &[&upstream.url(), "-o", "answer", "--output", "json"])?;
    assert!(output.stdout.is_empty());
    let outcome: Value = serde_json::from_slice(&fs::read(folder.path().join("answer"))?)?;
    assert_eq!((&outcome["state"], &outcome["body"]["ok"]), (&"succeeded".into(), &true.into()));
    Ok(())
}

#[test]
fn an_answer_of_failure_is_printed_and_exits_1_and_is_not_retried() -> Outcome {
    let (folder, upstream) = (tempfile::tempdir()?, upstream()?);
    for status in ["404", "503"] {
        let output = call(folder.path(), &[&format!("{}/{status}", upstream.url())])?;
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.stdout, b"{\n \"ok\": true }\n");
        assert_eq!(stderr(&output), format!("failed: the upstream answered {status} (http_status)\n"));
    }
    assert_eq!(upstream.arrivals().len(), 2);
    let output =
        call(folder.path(), &[&format!("{}/503", upstream.url()), "-q", "--retry", r#"{"max":2,"wait":0.01}"#])?;
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), ""));
    assert_eq!(upstream.arrivals().len(), 5);
    Ok(())
}

#[test]
fn a_timeout_exits_5_and_a_closed_port_6() -> Outcome {
    let folder = tempfile::tempdir()?;
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_secs(600)))?;
    for words in [["--timeout", "100ms"], ["--deadline", "100ms"]] {
        let output = call(folder.path(), &[&upstream.url(), words[0], words[1]])?;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(5), 0), "{}", stderr(&output));
    }
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let output = call(folder.path(), &[&format!("http://{closed}")])?;
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    Ok(())
}

#[test]
fn what_is_no_call_exits_2_and_sends_nothing() -> Outcome {
    let (folder, upstream) = (tempfile::tempdir()?, upstream()?);
    let url = upstream.url();
    for words in [
        &[][..],
        &["nowhere/x"],
        &["ftp://localhost/"],
        &[&url, "-H", "host: other"],
        &[&url, "-d", "@missing"],
        &[&url, "--json", "{"],
        &[&url, "-o", "no/such/folder"],
        &[&url, "--dir", "missing", "--server", &url],
        &[&url, "--token", "t"],
        &["POST", &url, "more"],
    ] {
        let output = call(folder.path(), words)?;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{words:?}: {}", stderr(&output));
    }
    assert_eq!(upstream.arrivals().len(), 0);
    Ok(())
}

#[test]
fn a_directory_gives_upstreams_limits_secrets_and_retries() -> Outcome {
    let folder = tempfile::tempdir()?;
    let upstream = Recorder::start(|_, number| Reply::new(if number < 2 { 503 } else { 200 }))?;
    let dir = folder.path().join("calls");
    fs::create_dir(&dir)?;
    fs::write(dir.join("secret"), "hush")?;
    fs::write(dir.join("other.json"), "{\"upstream\": \"shop\"}")?;
    let config = format!(
        "upstreams:\n  shop:\n    base_url: {}/api\n    headers: {{ authorization: \"Bearer ${{file:secret}}\" }}\n    \
         retry: {{ max: 2, base: 1ms }}\n    limits: [\"1/300ms\"]\n    callback_success: touch called\n",
        upstream.url()
    );
    fs::write(dir.join("farcall.yml"), config)?;
    let begun = Instant::now();
    let output = call(folder.path(), &["shop/orders/7", "--dir", "calls"])?;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(begun.elapsed() >= Duration::from_millis(600), "the limit holds for retries: {:?}", begun.elapsed());
    {
        let arrivals = upstream.arrivals();
        assert_eq!((arrivals.len(), arrivals[0].path.as_str()), (3, "/api/orders/7"));
        assert!(arrivals.iter().all(|arrival| arrival.header("authorization") == Some("Bearer hush")));
    }
    let mut names: Vec<_> = fs::read_dir(&dir)?.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["farcall.yml", "other.json", "secret"], "nothing else is done there");

    fs::rename(&dir, folder.path().join(".farcall"))?;
    let output = call(folder.path(), &["shop"])?;
    assert_eq!(output.status.code(), Some(0), "the default directory: {}", stderr(&output));
    fs::write(folder.path().join(".farcall/farcall.yml"), "upstraems: {}\n")?;
    let output = call(folder.path(), &["shop"])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("farcall.yml:1:1"), "{}", stderr(&output));
    Ok(())
}

#[test]
fn calls_one_after_the_other_keep_to_a_limit_of_seconds() -> Outcome {
    // Each knows nothing of those before, and so takes short windows to be full.
    let (folder, upstream) = (tempfile::tempdir()?, upstream()?);
    let config = format!("upstreams: {{ shop: {{ base_url: \"{}\", limits: [\"1/500ms\"] }} }}\n", upstream.url());
    fs::write(folder.path().join("farcall.yml"), config)?;
    for _ in 0..3 {
        assert_eq!(call(folder.path(), &["shop/x", "--dir", "."])?.status.code(), Some(0));
    }
    assert_eq!(upstream.arrivals().len(), 3);
    assert_eq!(upstream.worst_window(Duration::from_millis(500)), 1);
    Ok(())
}

#[test]
fn ctrl_c_interrupts_it() -> Outcome {
    let folder = tempfile::tempdir()?;
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_secs(600)))?;
    let mut child = command(folder.path(), &[&upstream.url()]).spawn()?;
    until("the request", || (!upstream.arrivals().is_empty()).then_some(()));
    kill_process(Pid::from_child(&child), Signal::INT)?;
    assert_eq!(until("its end", || child.try_wait().transpose())?.code(), Some(130));
    Ok(())
}

#[test]
fn a_full_disk_is_told_of() -> Outcome {
    let (folder, upstream) = (tempfile::tempdir()?, upstream()?);
    let output = call(folder.path(), &[&upstream.url(), "-o", "/dev/full"])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("the answer cannot be written: No space left"), "{}", stderr(&output));
    Ok(())
}
