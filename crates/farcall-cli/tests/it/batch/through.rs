//! Through a running server: the same results, and after kills on either side every line is called once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farcall_crash::Point;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::resuming::assert_once;
use super::{Desk, Outcome, arrivals_by_path, exists, lines, post, states};
use crate::rig::program::{Launch, Program, get};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{pause, rounds, until};

const THROUGH: &str = "--dir @/calls --out @/results.ndjson";

/// The directory of a server, without anything configured but these lines.
fn directory(desk: &Desk, config: &str) -> std::io::Result<PathBuf> {
    let dir = desk.path("calls");
    fs::create_dir(&dir)?;
    fs::write(dir.join("farcall.yml"), config)?;
    Ok(dir)
}

fn accepted(dir: &Path) -> u64 {
    get(dir, "/healthz").map_or(0, |health| health.body["accepted"].as_u64().unwrap_or(0))
}

/// A few milliseconds for each request.
fn slow() -> std::io::Result<Recorder> {
    Recorder::start(|_, number| Reply::new(200).after(Duration::from_millis(5 + number as u64 % 7 * 5)))
}

#[test]
fn the_server_of_a_directory_makes_the_calls_and_results_read_as_ever() -> Outcome {
    let upstream = Recorder::start(|arrival, _| match arrival.path.as_str() {
        "/2" => Reply::new(404),
        "/3" => {
            let mut reply = Reply::new(200).after(Duration::from_millis(100));
            reply.body = "{\r\n  \"text\": \"a\\nb\", \"n\": 1.0\n}\n".to_owned();
            reply
        }
        _ => Reply::new(200),
    })?;
    let unknown_key = json!({"url": upstream.url(), "bdoy": 1}).to_string();
    let texts = [post(&upstream, 1), String::new(), post(&upstream, 2), "{\"url\": }".into(), post(&upstream, 3)];
    let desk = Desk::with(texts.into_iter().chain(["  \t".into(), unknown_key, post(&upstream, 4)]))?;
    let here = desk.start("--out @/here.ndjson")?.finish()?;
    let dir = directory(&desk, "server: { max_body: 64KiB }\n")?;
    let program = Program::serve(&dir)?;
    let there = desk.start(THROUGH)?.finish()?;
    assert_eq!((there.code, there.stdout.as_str()), (Some(1), ""), "{}", there.stderr);
    assert!(there.stderr.contains("6 results: 3 succeeded, 1 failed, 2 rejected in "), "{}", there.stderr);
    assert_eq!(here.code, there.code);

    let [mut here, mut there] = [desk.results("here.ndjson")?, desk.results("results.ndjson")?];
    for result in here.iter_mut().chain(&mut there).filter_map(Value::as_object_mut) {
        for key in ["id", "accepted_at", "started_at", "finished_at", "duration_ms"] {
            result.remove(key);
        }
        if let Some(headers) = result.get_mut("headers").and_then(Value::as_object_mut) {
            headers.remove("date");
        }
    }
    assert_eq!(here, there, "as without a server");
    assert!(fs::read_to_string(desk.path("results.ndjson"))?.contains(r#""n": 1.0"#), "bodies stay as they came");
    assert_eq!(upstream.arrivals().len(), 8);
    let listed = get(&dir, "/v1/calls?source=bulk")?.body;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(4), "they are calls of that server");

    let again = desk.start(THROUGH)?.finish()?;
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("has ended already"), "{}", again.stderr);
    assert_eq!((upstream.arrivals().len(), program.health()?["accepted"].as_u64()), (8, Some(4)));
    Ok(())
}

#[test]
fn a_server_at_a_url_is_named_by_flag_or_variable() -> Outcome {
    let upstream = slow()?;
    let desk = Desk::with_posts(&upstream, 5)?;
    let dir = directory(&desk, "server: { tokens: [\"hush\"] }\ndefaults: { addresses: any }\n")?;
    let program = Launch::new(&dir).listening().serve()?;
    let url = format!("http://{}", program.address());
    let wrong = desk.start(&format!("--out @/results.ndjson --server {url} --token loud"))?.finish()?;
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    let finished = desk.start(&format!("--out @/results.ndjson --server {url} --token hush"))?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(states(&desk.results("results.ndjson")?), ["succeeded"; 5]);
    assert_eq!(accepted_with(&program), 5);

    let elsewhere = desk.start("--out @/results.ndjson")?.finish()?;
    assert_eq!(elsewhere.code, Some(4), "without the server it is another batch: {}", elsewhere.stderr);
    assert!(elsewhere.stderr.contains(&format!("this batch was begun at {url}")), "{}", elsewhere.stderr);
    let input = desk.path("calls.ndjson").display().to_string();
    let variables = [("FARCALL_SERVER", url.as_str()), ("FARCALL_TOKEN", "hush")];
    let finished = crate::rig::command::start(["batch", &input, "--as-completed"], variables)?.finish()?;
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 5), "{}", finished.stderr);
    assert!(!exists(&desk.path("calls.ndjson.farcall")), "of results in a stream nothing stays");
    assert_eq!((accepted_with(&program), upstream.arrivals().len()), (10, 10));
    Ok(())
}

fn accepted_with(program: &Program) -> u64 {
    program.health().map_or(0, |health| health["accepted"].as_u64().unwrap_or(0))
}

#[test]
fn without_its_server_nothing_is_begun() -> Outcome {
    let upstream = slow()?;
    let desk = Desk::with_posts(&upstream, 2)?;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let away = desk.start(&format!("--server http://{closed}"))?.finish()?;
    assert_eq!(away.code, Some(6), "{}", away.stderr);
    assert!(!exists(&desk.path("calls.ndjson.farcall")));
    assert_eq!(upstream.arrivals().len(), 0);
    Ok(())
}

#[test]
fn a_policy_is_the_servers_own() -> Outcome {
    let upstream = slow()?;
    let desk = Desk::with(["{\"end_point\": \"/1\"}".to_owned(), "{\"end_point\": \"/2\"}".to_owned()])?;
    let dir = directory(&desk, &format!("upstreams: {{ shop: {{ base_url: \"{}\" }} }}\n", upstream.url()))?;
    let _program = Program::serve(&dir)?;
    for flags in ["--rate 5/1s", "--concurrency 2", "--upstream shop=http://localhost:1", "--listen none"] {
        let refused = desk.start(&format!("{THROUGH} {flags}"))?.finish()?;
        assert_eq!(refused.code, Some(2), "{flags}: {}", refused.stderr);
    }
    let unknown = desk.start(&format!("{THROUGH} --upstream shpo"))?.finish()?;
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("the server has no upstream `shpo`"), "{}", unknown.stderr);
    let finished = desk.start(&format!("{THROUGH} --upstream shop"))?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(arrivals_by_path(&upstream).into_keys().collect::<Vec<_>>(), ["/1", "/2"]);
    Ok(())
}

#[test]
fn lines_with_one_idempotency_key_are_one_call() -> Outcome {
    let upstream = slow()?;
    let keyed = |number: u32, key: &str| {
        json!({"url": format!("{}/{number}", upstream.url()), "idempotency_key": key}).to_string()
    };
    let desk = Desk::with([keyed(1, "a"), keyed(1, "a"), keyed(2, "a"), keyed(3, "b"), keyed(1, "a")])?;
    let dir = directory(&desk, "")?;
    let _program = Program::serve(&dir)?;
    for output in ["first", "second"] {
        let command = format!("--dir @/calls --out @/{output}.ndjson");
        let finished = desk.start(&command)?.finish()?;
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        let results = desk.results(&format!("{output}.ndjson"))?;
        assert_eq!(states(&results), ["succeeded", "succeeded", "rejected", "succeeded", "succeeded"]);
        assert!(results[0]["id"] == results[1]["id"] && results[0]["id"] == results[4]["id"]);
        assert_eq!(upstream.arrivals().len(), 2, "also of those that had ended before the batch began");
    }
    Ok(())
}

#[test]
fn a_line_that_the_server_finds_too_long_is_rejected_and_the_next_is_read() -> Outcome {
    let upstream = slow()?;
    let long = |number| json!({"url": format!("{}/{number}", upstream.url()), "body": "x".repeat(200_000)}).to_string();
    let desk = Desk::with([long(1), post(&upstream, 2), long(3), long(4), post(&upstream, 5)])?;
    let dir = directory(&desk, "server: { max_body: 64KiB }\n")?;
    let _program = Program::serve(&dir)?;
    let finished = desk.start(THROUGH)?.finish()?;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let results = desk.results("results.ndjson")?;
    assert_eq!(states(&results), ["rejected", "succeeded", "rejected", "rejected", "succeeded"]);
    assert!(results[2]["error"]["message"].as_str().is_some_and(|message| message.contains("server.max_body")));
    Ok(())
}

fn survive_kills_of_the_client(flags: &str) -> Outcome {
    const LINES: u32 = 400;
    let upstream = slow()?;
    let desk = Desk::with_posts(&upstream, LINES)?;
    let dir = directory(&desk, "defaults: { concurrency: 4 }\n")?;
    let program = Program::serve(&dir)?;
    let command = format!("{THROUGH} {flags}");
    for kill in 0..rounds(12) {
        let running = desk.start(&command)?;
        pause(Duration::from_millis(10 + kill * 37 % 150));
        // Dropped is killed.
        drop(running);
    }
    let finished = desk.start(&command)?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let results = desk.results("results.ndjson")?;
    if flags.is_empty() {
        assert!(lines(&results).is_sorted(), "in the order of the input");
    }
    assert_once(&upstream, results, LINES);
    assert_eq!(program.health()?["accepted"].as_u64(), Some(u64::from(LINES)));
    Ok(())
}

#[test]
fn after_kills_of_the_client_every_line_has_one_result_in_order() -> Outcome {
    survive_kills_of_the_client("")
}

#[test]
fn after_kills_of_the_client_every_line_has_one_result_as_completed() -> Outcome {
    survive_kills_of_the_client("--as-completed")
}

#[test]
fn a_server_that_is_killed_is_waited_for_and_no_line_is_lost_or_called_twice() -> Outcome {
    const LINES: u32 = 400;
    let upstream = slow()?;
    let desk = Desk::with_posts(&upstream, LINES)?;
    let dir = directory(&desk, "defaults: { concurrency: 4 }\n")?;
    let mut program = Program::serve(&dir)?;
    let running = desk.start(THROUGH)?;
    for kill in 0..rounds(6) {
        let sent = upstream.arrivals().len();
        until("some more requests", || {
            let is_done = exists(&desk.path("results.ndjson"))
                && desk.results("results.ndjson").is_ok_and(|all| all.len() >= LINES as usize);
            (is_done || upstream.arrivals().len() > sent + 10).then_some(())
        });
        pause(Duration::from_millis(kill * 7));
        program.kill()?;
        program = Program::serve(&dir)?;
    }
    let finished = running.finish()?;
    let results = desk.results("results.ndjson")?;
    assert_eq!(finished.code, Some(i32::from(states(&results).contains(&"unknown"))), "{}", finished.stderr);
    assert!(finished.stderr.contains("waiting for the server to come back"), "{}", finished.stderr);
    assert_once(&upstream, results, LINES);
    assert_eq!(program.health()?["accepted"].as_u64(), Some(u64::from(LINES)));
    Ok(())
}

#[test]
fn lines_that_were_accepted_and_never_answered_are_one_call_each() -> Outcome {
    // The server dies when the lines are durable, and nobody has told so.
    let upstream = slow()?;
    let desk = Desk::with_posts(&upstream, 50)?;
    let dir = directory(&desk, "")?;
    for (point, client_dies) in [(Point::InsertDurable, false), (Point::Acknowledging, true)] {
        let program = Launch::new(&dir).dying_at(point, 1).serve()?;
        let before = upstream.arrivals().len();
        let output = format!("{}.ndjson", point.name());
        let command = format!("--dir @/calls --out @/{output}");
        let running = desk.start(&command)?;
        let ended = program.finish()?;
        assert!(!ended.success(), "{}", point.name());
        let mut running = Some(running);
        if client_dies {
            drop(running.take());
        }
        let program = Program::serve(&dir)?;
        let running = running.map_or_else(|| desk.start(&command), Ok)?;
        let finished = running.finish()?;
        let results = desk.results(&output)?;
        assert_eq!(lines(&results), (1..=50).collect::<Vec<_>>(), "{}", finished.stderr);
        assert_eq!(
            program.health()?["accepted"].as_u64().map(|accepted| accepted % 50),
            Some(0),
            "{}",
            finished.stderr
        );
        assert!(upstream.arrivals().len() - before <= 50, "{}", point.name());
        assert_eq!(program.terminate()?.code(), Some(0));
    }
    Ok(())
}

#[test]
fn a_batch_in_a_directory_goes_on_with_its_server_and_without() -> Outcome {
    const LINES: u32 = 3_000;
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(1)))?;
    let desk = Desk::with_posts(&upstream, LINES)?;
    let dir = directory(&desk, "defaults: { concurrency: 2 }\n")?;
    for round in 0..6 {
        let program = if round % 2 == 0 { None } else { Some(Program::serve(&dir)?) };
        let running = desk.start(THROUGH)?;
        let before = upstream.arrivals().len();
        until("some requests", || (upstream.arrivals().len() > before + 50).then_some(()));
        pause(Duration::from_millis(round * 17));
        drop(running);
        match program {
            Some(program) if round == 3 => program.kill()?,
            Some(program) => assert_eq!(program.terminate()?.code(), Some(0)),
            None => {}
        }
    }
    let finished = desk.start(THROUGH)?.finish()?;
    let results = desk.results("results.ndjson")?;
    assert_eq!(finished.code, Some(i32::from(states(&results).contains(&"unknown"))), "{}", finished.stderr);
    assert_once(&upstream, results, LINES);
    let program = Program::serve(&dir)?;
    assert_eq!(program.health()?["accepted"].as_u64(), Some(u64::from(LINES)));
    assert_eq!(accepted(&dir), u64::from(LINES));
    Ok(())
}

#[test]
fn ctrl_c_leaves_the_calls_to_the_server_and_the_same_command_goes_on() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(50)))?;
    let desk = Desk::with_posts(&upstream, 100)?;
    let dir = directory(&desk, "defaults: { concurrency: 4 }\n")?;
    let program = Program::serve(&dir)?;
    let running = desk.start(THROUGH)?;
    until("some requests", || (upstream.arrivals().len() >= 8).then_some(()));
    running.signal(Signal::INT)?;
    let finished = running.finish()?;
    assert_eq!(finished.code, Some(130), "{}", finished.stderr);
    assert!(finished.stderr.contains("the same command goes on"), "{}", finished.stderr);
    until("the rest", || (program.health().ok()?["calls"]["succeeded"] == 100).then_some(()));
    let finished = desk.start(THROUGH)?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_once(&upstream, desk.results("results.ndjson")?, 100);
    Ok(())
}

#[test]
fn two_of_the_same_batch_do_not_run_at_once() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_secs(600)))?;
    let desk = Desk::with_posts(&upstream, 2)?;
    let dir = directory(&desk, "")?;
    let _program = Program::serve(&dir)?;
    let _running = desk.start(THROUGH)?;
    until("the requests", || (upstream.arrivals().len() == 2).then_some(()));
    for flags in ["", "--restart"] {
        let second = desk.start(&format!("{THROUGH} {flags}"))?.finish()?;
        assert_eq!(second.code, Some(7), "{}", second.stderr);
        assert!(second.stderr.contains("under way already"), "{}", second.stderr);
    }
    Ok(())
}

#[test]
fn lines_whose_keys_may_be_forgotten_are_not_offered_again() -> Outcome {
    let upstream = slow()?;
    let desk = Desk::with_posts(&upstream, 3)?;
    let dir = directory(&desk, "")?;
    let program = Launch::new(&dir).dying_at(Point::Acknowledging, 1).serve()?;
    drop((desk.start(THROUGH)?, program.finish()?));
    let journal = fs::read_dir(dir.join(".farcall/batches"))?.next().expect("a journal")?.path();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(73 * 3600);
    fs::File::options().append(true).open(&journal)?.set_modified(long_ago)?;
    let _program = Program::serve(&dir)?;
    let refused = desk.start(THROUGH)?.finish()?;
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(refused.stderr.contains("lines 1 to 3 may have been accepted"), "{}", refused.stderr);
    Ok(())
}
