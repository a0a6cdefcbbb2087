//! Kill -9, Ctrl-C and power: the same command goes on, and every line is called once.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::{Desk, Outcome, arrivals_by_path, lines, parsed, post, states};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{pause, rounds, until};

const LINES: u32 = 400;

fn slow() -> std::io::Result<Recorder> {
    Recorder::start(|_, number| Reply::new(200).after(Duration::from_millis(number as u64 % 7 * 5)))
}

/// No line sent twice, none without a result, none with two.
pub(super) fn assert_once(upstream: &Recorder, mut results: Vec<Value>, count: u32) {
    results.sort_by_key(|result| result["line"].as_u64());
    assert_eq!(lines(&results), (1..=u64::from(count)).collect::<Vec<_>>());
    let arrivals = arrivals_by_path(upstream);
    for result in &results {
        let times = arrivals.get(&format!("/{}", result["line"])).copied().unwrap_or(0);
        match result["state"].as_str() {
            Some("succeeded") => assert_eq!(times, 1, "{result}"),
            // A POST that was out when the process was killed is not repeated.
            Some("unknown") => assert!(times <= 1, "{result} was sent {times} times"),
            _ => panic!("{result}"),
        }
    }
}

fn survive_kills(flags: &str) -> Outcome {
    let upstream = slow()?;
    let desk = Desk::with_posts(&upstream, LINES)?;
    let command = format!("--out @/results.ndjson {flags}");
    for kill in 0..rounds(12) {
        let running = desk.start(&command)?;
        pause(Duration::from_millis(20 + kill * 53 % 170));
        // Dropped is killed.
        drop(running);
        let is_begun = fs::metadata(desk.path("results.ndjson")).is_ok_and(|metadata| metadata.len() > 0);
        if kill % 3 == 0 && is_begun {
            // As a kill in the midst of a write leaves it.
            OpenOptions::new().append(true).open(desk.path("results.ndjson"))?.write_all(b"{\"line\":1,\"id\":\"ca")?;
        }
    }
    let finished = desk.start(&command)?.finish()?;
    let results = desk.results("results.ndjson")?;
    if flags.is_empty() {
        assert!(lines(&results).is_sorted(), "in the order of the input");
    }
    assert_eq!(finished.code, Some(i32::from(states(&results).contains(&"unknown"))), "{}", finished.stderr);
    assert_once(&upstream, results, LINES);
    Ok(())
}

#[test]
fn after_kills_at_random_moments_every_line_has_one_result_in_order() -> Outcome {
    survive_kills("")
}

#[test]
fn after_kills_at_random_moments_every_line_has_one_result_as_completed() -> Outcome {
    survive_kills("--as-completed")
}

#[test]
fn a_batch_that_has_ended_is_not_done_again() -> Outcome {
    let upstream = slow()?;
    let desk = Desk::with_posts(&upstream, 10)?;
    assert_eq!(desk.start("--out @/results.ndjson")?.finish()?.code, Some(0));
    let first = fs::read(desk.path("results.ndjson"))?;
    let again = desk.start("--out @/results.ndjson")?.finish()?;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("has ended already"), "{}", again.stderr);
    assert_eq!(fs::read(desk.path("results.ndjson"))?, first);
    assert_eq!(upstream.arrivals().len(), 10);

    let anew = desk.start("--out @/results.ndjson --restart")?.finish()?;
    assert_eq!(anew.code, Some(0), "{}", anew.stderr);
    assert_eq!((upstream.arrivals().len(), desk.results("results.ndjson")?.len()), (20, 10));
    Ok(())
}

#[test]
fn ctrl_c_drains_and_the_same_command_goes_on() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(200)))?;
    let desk = Desk::with_posts(&upstream, 100)?;
    let running = desk.start("--out @/results.ndjson --concurrency 4")?;
    until("some requests", || (upstream.arrivals().len() >= 8).then_some(()));
    running.signal(Signal::INT)?;
    let finished = running.finish()?;
    assert_eq!(finished.code, Some(130), "{}", finished.stderr);
    assert!(finished.stderr.contains("the same command goes on"), "{}", finished.stderr);
    let (sent, written) = (upstream.arrivals().len(), desk.results("results.ndjson")?.len());
    assert!(sent < 100, "the rest was not left");
    assert_eq!(sent, written, "what was in flight was awaited, and its results written");
    let finished = desk.start("--out @/results.ndjson")?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stderr.contains(&format!("going on: {written} results written already")), "{}", finished.stderr);
    assert_once(&upstream, desk.results("results.ndjson")?, 100);
    assert_eq!(upstream.arrivals().len(), 100);
    Ok(())
}

/// Begins a batch of 100 lines, and interrupts it after some.
fn interrupted(upstream: &Recorder, command: &str) -> Result<Desk, Box<dyn std::error::Error>> {
    let desk = Desk::with_posts(upstream, 100)?;
    let running = desk.start(command)?;
    until("some requests", || (upstream.arrivals().len() >= 4).then_some(()));
    running.signal(Signal::INT)?;
    assert_eq!(running.finish()?.code, Some(130));
    Ok(desk)
}

#[test]
fn a_changed_input_is_found_out_before_anything_is_sent() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(50)))?;
    let command = "--out @/results.ndjson --concurrency 2";
    let desk = interrupted(&upstream, command)?;
    let (sent, written) = (upstream.arrivals().len(), fs::read(desk.path("results.ndjson"))?);
    let input = fs::read_to_string(desk.path("calls.ndjson"))?;
    for changed in [input.replacen("/50", "/5x", 1), input[..input.len() / 2].to_owned(), input.clone() + &input] {
        fs::write(desk.path("calls.ndjson"), changed)?;
        let finished = desk.start(command)?.finish()?;
        assert_eq!(finished.code, Some(4), "{}", finished.stderr);
        assert!(finished.stderr.contains("the input has changed"), "{}", finished.stderr);
        assert!(finished.stderr.contains("--restart"), "{}", finished.stderr);
    }
    assert_eq!((upstream.arrivals().len(), fs::read(desk.path("results.ndjson"))?), (sent, written));

    desk.write([post(&upstream, 1), post(&upstream, 2)])?;
    let finished = desk.start(&format!("{command} --restart"))?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(upstream.arrivals().len(), sent + 2, "the calls of the batch that was forgotten are not made");
    assert_eq!(lines(&desk.results("results.ndjson")?), [1, 2]);
    Ok(())
}

#[test]
fn an_output_of_something_else_is_left_alone() -> Outcome {
    let upstream = slow()?;
    let desk = Desk::with_posts(&upstream, 3)?;
    for text in ["my notes\n", "{\"line\":1,\"state\":\"succeeded\"}\n"] {
        fs::write(desk.path("results.ndjson"), text)?;
        let finished = desk.start("--out @/results.ndjson")?.finish()?;
        assert_eq!(finished.code, Some(4), "{}", finished.stderr);
        assert_eq!(fs::read_to_string(desk.path("results.ndjson"))?, text);
    }
    let same = desk.start("--out @/calls.ndjson")?.finish()?;
    assert_eq!(same.code, Some(2), "{}", same.stderr);
    assert_eq!(upstream.arrivals().len(), 0);
    Ok(())
}

#[test]
fn results_in_a_stream_are_all_given_again() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(50)))?;
    let desk = interrupted(&upstream, "--concurrency 2")?;
    let finished = desk.start("")?.finish()?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_once(&upstream, parsed(&finished.stdout)?, 100);
    assert_eq!(upstream.arrivals().len(), 100);
    Ok(())
}

#[test]
fn the_other_order_is_refused_while_a_batch_goes_on() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(50)))?;
    let desk = interrupted(&upstream, "--out @/results.ndjson --concurrency 2")?;
    let finished = desk.start("--out @/results.ndjson --as-completed")?.finish()?;
    assert_eq!(finished.code, Some(4), "{}", finished.stderr);
    Ok(())
}

#[test]
fn two_of_the_same_batch_do_not_run_at_once() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_secs(600)))?;
    let desk = Desk::with_posts(&upstream, 2)?;
    let running = desk.start("--out @/results.ndjson")?;
    until("the requests", || (upstream.arrivals().len() == 2).then_some(()));
    let second = desk.start("--out @/results.ndjson")?.finish()?;
    assert_eq!(second.code, Some(7), "{}", second.stderr);
    drop(running);
    Ok(())
}
