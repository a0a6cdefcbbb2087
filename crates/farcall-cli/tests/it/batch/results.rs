//! What comes out: one result per line, in which order, and what is said of it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Desk, Outcome, exists, lines, parsed, post, states};
use crate::rig::recorder::{Recorder, Reply};

#[test]
fn every_line_gets_a_result_like_a_response_file_in_the_order_of_the_input() -> Outcome {
    let upstream = Recorder::start(|arrival, _| match arrival.path.as_str() {
        "/2" => Reply::new(404),
        "/3" => {
            let mut reply = Reply::new(200).after(Duration::from_millis(100));
            reply.body = "{\r\n  \"text\": \"a\\nb\"\n}\n".to_owned();
            reply
        }
        _ => Reply::new(200),
    })?;
    let unknown_key = json!({"url": upstream.url(), "bdoy": 1}).to_string();
    let texts = [post(&upstream, 1), String::new(), post(&upstream, 2), "{\"url\": }".into(), post(&upstream, 3)];
    let desk = Desk::with(texts.into_iter().chain(["  \t".into(), unknown_key, post(&upstream, 4)]))?;
    let finished = desk.start("--out @/results.ndjson")?.finish()?;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), ""), "{}", finished.stderr);
    assert!(finished.stderr.contains("6 results: 3 succeeded, 1 failed, 2 rejected in "), "{}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 1, "what failed is told by its result: {}", finished.stderr);

    let results = desk.results("results.ndjson")?;
    assert_eq!(lines(&results), [1, 3, 4, 5, 7, 8]);
    assert_eq!(states(&results), ["succeeded", "failed", "rejected", "succeeded", "rejected", "succeeded"]);
    assert_eq!((&results[0]["status"], &results[0]["body"]), (&json!(200), &json!({"ok": true})));
    assert!(results[0]["id"].as_str().is_some_and(|id| id.starts_with("call_")));
    assert_eq!((&results[0]["attempts"], &results[1]["error"]["kind"]), (&json!(1), &json!("http_status")));
    assert_eq!(results[3]["body"], json!({"text": "a\nb"}), "line breaks of a JSON body do not break the line");
    assert_eq!((&results[2]["id"], &results[2]["error"]["line"]), (&Value::Null, &json!(4)));
    assert_eq!(results[2]["error"]["column"], 9);
    assert_eq!(results[4]["error"]["key"], "bdoy");
    assert!(results[4]["error"]["message"].as_str().is_some_and(|message| message.contains("`body`")));
    assert_eq!(upstream.arrivals().len(), 4, "what is rejected is not sent");
    Ok(())
}

#[test]
fn as_completed_writes_the_quick_ones_first() -> Outcome {
    let upstream = Recorder::start(|arrival, _| {
        Reply::new(200).after(Duration::from_millis(if arrival.path == "/1" { 500 } else { 0 }))
    })?;
    let desk = Desk::with_posts(&upstream, 20)?;
    let finished = desk.start("--as-completed")?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let mut found = lines(&parsed(&finished.stdout)?);
    assert_eq!(found.last(), Some(&1));
    found.sort_unstable();
    assert_eq!(found, (1..=20).collect::<Vec<_>>());
    assert!(!exists(&desk.path("calls.ndjson.farcall")), "of results in a stream nothing stays");
    Ok(())
}

#[test]
fn a_slow_call_holds_up_the_results_behind_it_and_not_their_calls() -> Outcome {
    let upstream = Recorder::start(|arrival, number| match arrival.path.as_str() {
        "/1" if number < 60 => Reply::new(503),
        _ => Reply::new(200),
    })?;
    let mut texts: Vec<String> = (1..=100).map(|number| post(&upstream, number)).collect();
    texts[0] = json!({"url": format!("{}/1", upstream.url()), "retry": {"max": 50, "wait": 0.05}}).to_string();
    let desk = Desk::with(texts)?;
    let finished = desk.start("--out @/results.ndjson")?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(lines(&desk.results("results.ndjson")?), (1..=100).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn lines_with_one_idempotency_key_are_one_call() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(100)))?;
    let keyed = |path| json!({"url": format!("{}/{path}", upstream.url()), "idempotency_key": "k"}).to_string();
    let desk = Desk::with([keyed(1), keyed(1), keyed(2), post(&upstream, 3)])?;
    for flags in ["", "--as-completed"] {
        let finished = desk.start(flags)?.finish()?;
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        let mut results = parsed(&finished.stdout)?;
        results.sort_by_key(|result| result["line"].as_u64());
        assert_eq!(states(&results), ["succeeded", "succeeded", "rejected", "succeeded"]);
        assert_eq!(results[0]["id"], results[1]["id"]);
        assert_eq!(results[2]["error"]["key"], "idempotency_key");
    }
    assert_eq!(upstream.arrivals().len(), 4, "two calls each time");
    Ok(())
}

#[test]
fn without_any_line_there_is_no_result() -> Outcome {
    let desk = Desk::with([])?;
    let finished = desk.start("")?.finish()?;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""));
    assert!(finished.stderr.starts_with("0 results in "), "{}", finished.stderr);
    let quiet = desk.start("-q")?.finish()?;
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
    Ok(())
}

#[test]
fn a_line_longer_than_a_call_may_be_is_rejected_and_the_next_is_read() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200))?;
    let long = json!({"url": upstream.url(), "body": "x".repeat(3_000)}).to_string();
    let desk = Desk::with([post(&upstream, 1), long, post(&upstream, 3)])?;
    let finished = desk.start("--server-max-body 2KiB")?.finish()?;
    let results = parsed(&finished.stdout)?;
    assert_eq!(states(&results), ["succeeded", "rejected", "succeeded"], "{}", finished.stderr);
    Ok(())
}
