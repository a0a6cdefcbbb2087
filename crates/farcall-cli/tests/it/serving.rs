//! `farcall serve` and `kofaf`: where they listen, what they refuse, how they end, what they log.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::command::{Running, farcall, start, start_as};
use crate::rig::program::{get, post_call};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{assert_within, drop_file, pause, response, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Starts the server with JSON logs, and waits until its socket answers.
fn serve(dir: &Path, listen: &str) -> std::io::Result<Running> {
    let args = ["serve", "--log-format", "json", "--listen", listen].map(Path::new);
    let running = start(args.into_iter().chain([dir]), [])?;
    until("the server's health", || get(dir, "/healthz").ok().filter(|health| health.status == 200));
    Ok(running)
}

fn events(log: &str) -> Result<Vec<Value>, serde_json::Error> {
    log.lines().map(serde_json::from_str).collect()
}

/// Where it says that it serves; it answers on its socket a little before it has said so.
fn address(running: &Running) -> String {
    until("the line that says where it serves", || {
        let events = events(&running.stderr()).ok()?;
        let serving = events.iter().find(|event| event["message"] == "serving")?;
        serving["listen"].as_str().map(str::to_owned)
    })
}

#[test]
fn it_tells_where_it_listens_and_who_may_come() -> Outcome {
    let dir = tempfile::tempdir()?;
    let running = serve(dir.path(), "127.0.0.1:0")?;
    let address = address(&running);
    let mut stream = TcpStream::connect(&address)?;
    write!(stream, "GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    until("the warning", || running.stderr().contains("whoever reaches this address acts as you").then_some(()));
    running.signal(Signal::TERM)?;
    assert_eq!(running.finish()?.code, Some(0));
    Ok(())
}

#[test]
fn its_directory_is_made_for_its_owner_alone() -> Outcome {
    let parent = tempfile::tempdir()?;
    let dir = parent.path().join("deep/calls");
    let running = serve(&dir, "none")?;
    let mode = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.permissions().mode() & 0o777);
    assert_eq!((mode(&dir)?, mode(&dir.join(".farcall"))?), (0o700, 0o700));
    assert_eq!(mode(&dir.join(".farcall/farcall.sock"))?, 0o600);
    drop(running);
    Ok(())
}

#[test]
fn a_directory_in_use_is_refused_with_7_and_an_address_with_2() -> Outcome {
    let dir = tempfile::tempdir()?;
    let running = serve(dir.path(), "none")?;
    for command in ["serve", "run"] {
        let second = start([Path::new(command), dir.path()], [])?.finish()?;
        assert_eq!(second.code, Some(7), "{command}");
        assert!(second.stderr.contains("in use by another farcall"), "{}", second.stderr);
    }
    // Two stores would make it two engines that take the same files.
    let elsewhere = tempfile::tempdir()?;
    let args = ["serve", "--listen", "none", "--store-path"].map(Path::new);
    assert_within(Duration::from_secs(1), "refusing the second", || {
        let second =
            farcall(args.into_iter().chain([elsewhere.path(), dir.path()])).expect("the program can be started");
        assert_eq!(second.code, Some(7), "{}", second.stderr);
        assert!(second.stderr.contains("in use by another farcall"), "{}", second.stderr);
    });
    assert_eq!(fs::read_dir(elsewhere.path())?.count(), 0, "it wrote something");
    assert_eq!(get(dir.path(), "/healthz")?.status, 200, "the first was disturbed");
    drop(running);

    let other = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let listen = taken.local_addr()?.to_string();
    let args = ["serve", "--listen", &listen].map(Path::new).into_iter().chain([other.path()]);
    let refused = start(args, [])?.finish()?;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains(&listen), "{}", refused.stderr);
    Ok(())
}

#[test]
fn nothing_is_sent_when_the_address_is_refused() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    drop_file(dir.path(), "order.json", &json!({"url": upstream.url()}).to_string())?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let listen = taken.local_addr()?.to_string();
    let args = ["serve", "--listen", &listen].map(Path::new).into_iter().chain([dir.path()]);
    assert_eq!(start(args, [])?.finish()?.code, Some(2));
    assert!(dir.path().join("order.json").exists() && upstream.arrivals().is_empty());
    Ok(())
}

#[test]
fn only_loopback_without_tokens() -> Outcome {
    let dir = tempfile::tempdir()?;
    let args = ["serve", "--listen", "0.0.0.0:0"].map(Path::new).into_iter().chain([dir.path()]);
    let refused = start(args, [])?.finish()?;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("listens on loopback only"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn sigterm_lets_what_is_in_flight_finish() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(700)))?;
    let dir = tempfile::tempdir()?;
    let running = serve(dir.path(), "none")?;
    drop_file(dir.path(), "order.json", &json!({"url": upstream.url(), "body": {}}).to_string())?;
    until("the request", || (!upstream.arrivals().is_empty()).then_some(()));
    running.signal(Signal::TERM)?;
    until("the drain", || {
        let health = get(dir.path(), "/healthz").ok()?;
        (health.body["draining"] == true).then_some(())
    });
    let finished = running.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(!dir.path().join(".farcall/farcall.sock").exists(), "the socket is still there");

    let running = serve(dir.path(), "none")?;
    assert_eq!(response(dir.path(), "order.json")["state"], "succeeded");
    assert_eq!(upstream.arrivals().len(), 1);
    drop(running);
    Ok(())
}

#[test]
fn ctrl_c_drains_too_and_exits_130() -> Outcome {
    let dir = tempfile::tempdir()?;
    let running = serve(dir.path(), "none")?;
    running.signal(Signal::INT)?;
    assert_eq!(running.finish()?.code, Some(130));
    Ok(())
}

#[test]
fn a_second_sigterm_stops_at_once() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_secs(600)))?;
    let dir = tempfile::tempdir()?;
    let running = serve(dir.path(), "none")?;
    drop_file(dir.path(), "slow.json", &json!({"url": upstream.url()}).to_string())?;
    until("the request", || (!upstream.arrivals().is_empty()).then_some(()));
    let begun = Instant::now();
    running.signal(Signal::TERM)?;
    pause(Duration::from_millis(300));
    running.signal(Signal::TERM)?;
    assert_eq!(running.finish()?.code, Some(130));
    assert!(begun.elapsed() < Duration::from_secs(15), "it waited for the drain's 30 s");
    Ok(())
}

#[test]
fn json_logs_are_a_document_a_line_whatever_files_are_called() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(404))?;
    let dir = tempfile::tempdir()?;
    let running = serve(dir.path(), "127.0.0.1:0")?;
    let hostile = "x\n{\"level\":\"ERROR\"}\u{1b}[2J";
    drop_file(dir.path(), format!("{hostile}.json"), &json!({"url": upstream.url()}).to_string())?;
    drop_file(dir.path(), format!("{hostile}2.json"), "{")?;
    response(dir.path(), format!("{hostile}.json"));
    response(dir.path(), format!("{hostile}2.json"));
    running.signal(Signal::TERM)?;
    let finished = running.finish()?;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""));
    for event in events(&finished.stderr)? {
        assert!(
            event["level"].is_string() && event["timestamp"].is_string() && event["message"].is_string(),
            "{event}"
        );
    }
    for line in finished.stderr.lines() {
        assert_eq!(line.matches("\"message\":").count(), 1, "no key stands twice: {line}");
    }
    Ok(())
}

#[test]
fn a_reader_of_json_logs_is_told_in_json_why_it_ended() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("farcall.yml"), "upstreamz: {}\n")?;
    let args = ["serve", "--log-format", "json"].map(Path::new).into_iter().chain([dir.path()]);
    let finished = start(args, [])?.finish()?;
    assert_eq!(finished.code, Some(2));
    let events = events(&finished.stderr)?;
    assert_eq!((&events[0]["level"], &events[0]["line"]), (&"ERROR".into(), &1.into()), "{events:?}");
    Ok(())
}

#[test]
fn as_kofaf_it_serves_its_own_directory_without_a_port() -> Outcome {
    let names = tempfile::tempdir()?;
    let kofaf = names.path().join("kofaf");
    symlink(env!("CARGO_BIN_EXE_farcall"), &kofaf)?;
    let running = start_as(&kofaf, ["--log-format", "json"], [])?;
    let dir = running.home().join(".kofaf");
    until("the socket's health", || get(&dir, "/healthz").ok().filter(|health| health.status == 200));
    assert_eq!(address(&running), "none");
    running.signal(Signal::TERM)?;
    assert_eq!(running.finish()?.code, Some(0));

    let given = names.path().join("given");
    let args = [Path::new("--log-format"), Path::new("json"), &given];
    let asked = start_as(&kofaf, args, [("FARCALL_SERVER_LISTEN", "127.0.0.1:0")])?;
    until("the socket's health", || get(&given, "/healthz").ok().filter(|health| health.status == 200));
    assert!(address(&asked).starts_with("127.0.0.1:"), "the variable asks for a port");
    Ok(())
}

#[test]
fn a_disk_that_is_nearly_full_is_told_of_once_and_files_stay() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let config =
        format!("store: {{ min_free: 1000TiB }}\nupstreams: {{ api: {{ base_url: \"{}\" }} }}\n", upstream.url());
    fs::write(dir.path().join("farcall.yml"), config)?;
    let running = serve(dir.path(), "none")?;
    drop_file(dir.path(), "order.json", &json!({"upstream": "api"}).to_string())?;
    let told = || events(&running.stderr()).unwrap_or_default();
    let warning = |event: &Value| event["message"].as_str().is_some_and(|text| text.contains("nearly full"));
    until("the warning", || told().iter().any(warning).then_some(()));
    for _ in 0..2 {
        let answer = post_call(dir.path(), &json!({"upstream": "api"}))?;
        assert_eq!((answer.status, &answer.body["code"]), (507, &json!("storage_full")));
    }
    pause(Duration::from_millis(1_500));
    assert_eq!(told().iter().filter(|event| warning(event)).count(), 1, "{}", running.stderr());
    assert!(dir.path().join("order.json").exists());
    assert_eq!(upstream.arrivals().len(), 0);
    Ok(())
}
