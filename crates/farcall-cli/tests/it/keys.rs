//! A dropped connection is not a lost call: the same key again, after the server was killed or at the same time, is the
//! same call, by single posts and in bulk.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Barrier, mpsc};
use std::time::Duration;

use farcall_crash::Point;
use serde_json::{Value, json};

use crate::rig::program::{Launch, Program, get, post_call, send_raw};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{PATIENCE, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Attempts that can be out at once.
const CONCURRENCY: usize = 4;

fn scene() -> Result<(tempfile::TempDir, Recorder), Box<dyn std::error::Error>> {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(3)))?;
    let dir = tempfile::tempdir()?;
    let config = format!("upstreams:\n  api: {{ base_url: \"{}\", concurrency: {CONCURRENCY} }}\n", upstream.url());
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    Ok((dir, upstream))
}

fn call(number: usize) -> Value {
    json!({ "upstream": "api", "end_point": format!("/{number}"), "body": {"n": number}, "idempotency_key": format!("key-{number}") })
}

/// The call once it has ended.
fn end_of(dir: &Path, id: &str) -> Value {
    until("the call's end", || {
        let call = get(dir, &format!("/v1/calls/{id}")).ok()?.body;
        (!call["finished_at"].is_null()).then_some(call)
    })
}

/// How often each path arrived.
fn arrivals(upstream: &Recorder) -> BTreeMap<String, usize> {
    let mut by_path = BTreeMap::new();
    for arrival in upstream.arrivals().iter() {
        *by_path.entry(arrival.path.clone()).or_default() += 1;
    }
    by_path
}

#[test]
fn a_hundred_posts_of_one_key_at_once_are_one_call() -> Outcome {
    const POSTS: usize = 100;
    let (dir, upstream) = scene()?;
    let program = Program::serve(dir.path())?;
    let (text, gate) = (call(0).to_string(), Barrier::new(POSTS));
    let post = || {
        gate.wait();
        send_raw(dir.path(), "POST /v1/calls", "content-type: application/json\r\n", &text).expect("an answer")
    };
    let answers: Vec<_> = std::thread::scope(|scope| {
        let posts: Vec<_> = (0..POSTS).map(|_| scope.spawn(post)).collect();
        posts.into_iter().map(|post| post.join().expect("it does not panic")).collect()
    });
    let id_of =
        |body: &str| serde_json::from_str::<Value>(body).ok().and_then(|call| Some(call["id"].as_str()?.to_owned()));
    let ids: HashSet<_> = answers.iter().map(|(_, body)| id_of(body).expect("an id")).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert!(answers.iter().all(|(head, _)| head.starts_with("HTTP/1.1 202 ")), "{answers:?}");
    let replayed = answers.iter().filter(|(head, _)| head.contains("idempotent-replayed: true")).count();
    assert_eq!(replayed, POSTS - 1);
    assert_eq!(end_of(dir.path(), ids.iter().next().expect("one"))["state"], "succeeded");
    assert_eq!((program.health()?["accepted"].as_u64(), arrivals(&upstream)), (Some(1), [("/0".to_owned(), 1)].into()));
    Ok(())
}

/// The places between a document that came in and its answer.
const BEFORE_THE_ANSWER: [Point; 4] =
    [Point::BatchSealed, Point::InsertBegun, Point::InsertDurable, Point::Acknowledging];

#[test]
fn a_call_whose_server_died_before_its_answer_is_the_same_when_it_is_posted_again() -> Outcome {
    for point in BEFORE_THE_ANSWER {
        let (dir, upstream) = scene()?;
        // It cannot be out yet, so that it must arrive once whenever the server died.
        let mut call = call(1);
        call["delay"] = json!("200ms");
        let program = Launch::new(dir.path()).dying_at(point, 1).serve()?;
        assert!(post_call(dir.path(), &call).is_err(), "{point:?}: it was answered");
        assert!(!program.finish()?.success());
        let program = Program::serve(dir.path())?;
        let again = post_call(dir.path(), &call)?;
        assert_eq!(again.status, 202, "{point:?}: {}", again.body);
        let call = end_of(dir.path(), again.body["id"].as_str().unwrap_or_default());
        assert_eq!((&call["state"], &call["attempts"]), (&json!("succeeded"), &json!(1)), "{point:?}: {call}");
        assert_eq!(program.health()?["accepted"], 1, "{point:?}");
        assert_eq!(arrivals(&upstream), [("/1".to_owned(), 1)].into(), "{point:?}");
    }
    Ok(())
}

#[test]
fn a_submitter_that_waited_when_the_server_died_gets_the_same_call_and_its_outcome() -> Outcome {
    let out = [
        Point::StartBegun,
        Point::StartDurable,
        Point::AttemptBegun,
        Point::FirstByteSent,
        Point::RequestSent,
        Point::FirstByteReceived,
        Point::AttemptEnded,
        Point::SettleBegun,
        Point::SettleDurable,
    ];
    for point in BEFORE_THE_ANSWER.into_iter().chain(out) {
        let (dir, upstream) = scene()?;
        let program = Launch::new(dir.path()).dying_at(point, 1).serve()?;
        let post = || send_raw(dir.path(), "POST /v1/calls", "prefer: wait=30\r\n", &call(2).to_string());
        assert!(post().is_err(), "{point:?}: it was answered");
        assert!(!program.finish()?.success());
        let program = Program::serve(dir.path())?;
        let (head, body) = post()?;
        assert!(head.starts_with("HTTP/1.1 200 "), "{point:?}: {head}");
        let call: Value = serde_json::from_str(&body)?;
        // A POST that may have arrived is not sent again: it arrived, or nobody knows.
        let (state, arrived) = (call["state"].as_str().unwrap_or_default(), arrivals(&upstream).len());
        assert!(upstream.arrivals().len() <= 1, "{point:?}: repeated");
        assert!(matches!((state, arrived), ("succeeded", 1) | ("unknown", 0 | 1)), "{point:?}: {arrived}, {call}");
        let was_answered = matches!(point, Point::SettleDurable);
        assert!(!was_answered || state == "succeeded", "{point:?}: {call}");
        assert_eq!(program.health()?["accepted"], 1, "{point:?}");
        assert_eq!(post()?.1, body, "{point:?}: it is what it was");
    }
    Ok(())
}

/// Sends lines of a bulk request, never more than `AHEAD` before their answers, until the server is gone; the answers.
fn bulk(dir: &Path, lines: &[String], mut each: impl FnMut(usize)) -> std::io::Result<Vec<Value>> {
    const AHEAD: usize = 25;
    let mut stream = UnixStream::connect(dir.join(".farcall/farcall.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head =
        "POST /v1/calls/bulk HTTP/1.1\r\nhost: farcall\r\nconnection: close\r\ncontent-type: application/x-ndjson";
    write!(stream, "{head}\r\ntransfer-encoding: chunked\r\n\r\n")?;
    let mut writer = stream.try_clone()?;
    let (answered, more) = mpsc::channel();
    let mut answers = Vec::new();
    std::thread::scope(|scope| {
        // The server may be gone in the middle.
        scope.spawn(move || -> std::io::Result<()> {
            for (number, line) in lines.iter().enumerate() {
                if number >= AHEAD && more.recv().is_err() {
                    return Ok(());
                }
                write!(writer, "{:x}\r\n{line}\n\r\n", line.len() + 1)?;
            }
            writer.write_all(b"0\r\n\r\n")
        });
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(answer) = serde_json::from_str(&line).ok().filter(Value::is_object) {
                answers.push(answer);
                each(answers.len());
                let _ = answered.send(());
            }
        }
        drop(answered);
    });
    Ok(answers)
}

/// The same lines are sent, again each time the server died in the middle (at a point, or killed after so many
/// answers), until all are answered.
fn survive_in_bulk(deaths: &[(Launch, usize)], scene: &(tempfile::TempDir, Recorder)) -> Outcome {
    const LINES: usize = 400;
    let (dir, upstream) = scene;
    let lines: Vec<String> = (0..LINES).map(|number| call(number).to_string()).collect();
    let mut known: BTreeMap<usize, String> = BTreeMap::new();
    let mut post = |program: &Program, kill_after: usize| -> Result<usize, Box<dyn std::error::Error>> {
        let kill_in_the_middle = |count| {
            if count == kill_after {
                let _ = program.signal(rustix::process::Signal::KILL);
            }
        };
        let answers = bulk(dir.path(), &lines, kill_in_the_middle)?;
        for (number, answer) in answers.iter().enumerate() {
            let id = answer["id"].as_str().ok_or_else(|| format!("line {number}: {answer}"))?;
            let before = known.insert(number, id.to_owned());
            assert!(before.as_deref().is_none_or(|before| before == id), "line {number} is {before:?}, and {id}");
        }
        Ok(answers.len())
    };
    for (launch, kill_after) in deaths {
        let program = launch.serve()?;
        let answered = post(&program, *kill_after)?;
        assert!(answered < LINES && !program.finish()?.success(), "it was not killed in the middle: {launch:?}");
    }
    let program = Program::serve(dir.path())?;
    assert_eq!(post(&program, usize::MAX)?, LINES);
    assert_eq!(known.values().collect::<HashSet<_>>().len(), LINES);
    let ends: Vec<Value> = known.values().map(|id| end_of(dir.path(), id)).collect();
    let arrived = arrivals(upstream);
    assert!(arrived.values().all(|&times| times == 1), "repeated: {arrived:?}");
    let unknown = ends.iter().filter(|call| call["state"] == "unknown").count();
    let succeeded = ends.iter().filter(|call| call["state"] == "succeeded").count();
    let bound = deaths.len() * CONCURRENCY;
    assert!(unknown <= bound && succeeded + unknown == LINES, "{succeeded} succeeded, {unknown} unknown");
    assert!(arrived.len() >= succeeded);
    assert_eq!(program.health()?["accepted"], LINES);
    Ok(())
}

#[test]
fn a_bulk_request_whose_server_was_killed_makes_no_call_twice_when_it_is_sent_again() -> Outcome {
    let scene = scene()?;
    let launch = Launch::new(scene.0.path());
    survive_in_bulk(&[1, 40, 150, 230].map(|after| (launch.clone(), after)), &scene)
}

#[test]
fn a_bulk_request_whose_server_died_around_a_commit_makes_no_call_twice_when_it_is_sent_again() -> Outcome {
    let scene = scene()?;
    let launch = Launch::new(scene.0.path());
    survive_in_bulk(&BEFORE_THE_ANSWER.map(|point| (launch.clone().dying_at(point, 3), usize::MAX)), &scene)
}
