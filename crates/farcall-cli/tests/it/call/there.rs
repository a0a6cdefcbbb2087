//! With a server: a durable call there, through the socket of a directory or a URL.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Outcome, call, command, stderr, upstream};
use crate::rig::program::{Launch, Program};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::until;

fn configure(dir: &Path, upstream: &Recorder, keys: &str) -> std::io::Result<()> {
    let config = format!("upstreams:\n  shop: {{ base_url: \"{}\", {keys} }}\n", upstream.url());
    fs::write(dir.join("farcall.yml"), config)
}

#[test]
fn the_server_of_a_directory_makes_the_call() -> Outcome {
    let (folder, upstream) = (tempfile::tempdir()?, upstream()?);
    configure(folder.path(), &upstream, "retry: 0, headers: { x-secret: s }")?;
    let program = Program::serve(folder.path())?;
    let output = call(folder.path(), &["POST", "shop/x", "--json", "[1, 2.0]", "-i", "--dir", "."])?;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(output.stdout, b"{\n \"ok\": true }\n");
    assert!(stderr(&output).starts_with("HTTP 200\n") && stderr(&output).contains("\nx-own: yes\n"));
    {
        let arrivals = upstream.arrivals();
        assert_eq!((arrivals.len(), arrivals[0].body.as_slice()), (1, &b"[1, 2.0]"[..]));
        assert_eq!(arrivals[0].header("x-secret"), Some("s"));
    }
    assert_eq!(program.health()?["calls"]["succeeded"], 1, "it is a call of that server");

    let output = call(folder.path(), &["shop/404", "--dir", "."])?;
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"{\n \"ok\": true }\n"[..]));
    let output = call(folder.path(), &["shop/x", "--dir", ".", "--output", "json"])?;
    let outcome: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&outcome["upstream"], &outcome["source"]), (&"shop".into(), &"api".into()));
    let output = call(folder.path(), &["nowhere/x", "--dir", "."])?;
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(program.terminate()?.code(), Some(0));

    let output = call(folder.path(), &["shop/x", "--dir", "."])?;
    assert_eq!(output.status.code(), Some(0), "without its server it is made here: {}", stderr(&output));
    Ok(())
}

#[test]
fn a_server_at_a_url_is_named_by_flag_or_variable() -> Outcome {
    let (folder, upstream) = (tempfile::tempdir()?, upstream()?);
    configure(folder.path(), &upstream, "retry: 0")?;
    let program = Launch::new(folder.path()).listening().serve()?;
    let server = format!("http://{}", program.address());
    let elsewhere = tempfile::tempdir()?;
    let output = call(elsewhere.path(), &["shop/x", "--server", &server])?;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = command(elsewhere.path(), &["shop/x"]).env("FARCALL_SERVER", &server).output()?;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(program.health()?["accepted"], 2);
    Ok(())
}

#[test]
fn a_server_that_is_not_there_exits_6() -> Outcome {
    let (folder, upstream) = (tempfile::tempdir()?, upstream()?);
    let closed = format!("http://{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let output = call(folder.path(), &[&upstream.url(), "--server", &closed])?;
    assert_eq!((output.status.code(), upstream.arrivals().len()), (Some(6), 0), "{}", stderr(&output));
    Ok(())
}

#[test]
fn a_call_that_takes_long_is_waited_for_and_goes_on_there_when_nobody_waits() -> Outcome {
    let folder = tempfile::tempdir()?;
    let upstream = Recorder::start(|_, number| Reply::new(200).after(Duration::from_secs(number as u64 * 600 + 1)))?;
    configure(folder.path(), &upstream, "retry: 0")?;
    let program = Program::serve(folder.path())?;
    let output = call(folder.path(), &["shop/x", "--dir", "."])?;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = File::create(folder.path().join("told"))?;
    let mut child = command(folder.path(), &["shop/x", "--dir", "."]).stderr(told).spawn()?;
    until("the request", || (upstream.arrivals().len() == 2).then_some(()));
    kill_process(Pid::from_child(&child), Signal::INT)?;
    assert_eq!(until("its end", || child.try_wait().transpose())?.code(), Some(130));
    let told = fs::read_to_string(folder.path().join("told"))?;
    assert!(told.contains("goes on there") && told.contains("farcall list"), "{told}");
    assert_eq!(program.health()?["calls"]["running"], 1);
    Ok(())
}

#[test]
fn a_host_without_its_scheme_is_told_how_to_write_it() -> Outcome {
    let (folder, upstream) = (tempfile::tempdir()?, upstream()?);
    configure(folder.path(), &upstream, "retry: 0")?;
    let _program = Program::serve(folder.path())?;
    let bare = format!("{}/orders?a=b", upstream.url().trim_start_matches("http://"));
    for dir in [&[][..], &["--dir", "."]] {
        for (target, hint) in [(bare.as_str(), format!("http://{bare}")), ("example.com", "http://example.com".into())]
        {
            let output = call(folder.path(), &[&[target], dir].concat())?;
            assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
            assert!(stderr(&output).contains(&format!("hint: for a host write {hint}")), "{}", stderr(&output));
        }
        let output = call(folder.path(), &[&["shpo/x"], dir].concat())?;
        assert!(stderr(&output).contains("hint: `shpo` is"), "{}", stderr(&output));
    }
    assert_eq!(upstream.arrivals().len(), 0);
    Ok(())
}
