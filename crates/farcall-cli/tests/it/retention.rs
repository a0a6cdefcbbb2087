//! Calls that ended longer ago than they are kept: forgotten while everything else goes on, and counted.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::program::{Program, get, post_call};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::world::{Told, World, assert_identity};
use crate::rig::{drop_file, response, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn configure(dir: &Path, retention: &str, upstream: &str) -> std::io::Result<()> {
    let text = format!("retention: {{ {retention} }}\nupstreams:\n  api: {{ {upstream} }}\n");
    fs::write(dir.join(".farcall.yml.new"), text)?;
    fs::rename(dir.join(".farcall.yml.new"), dir.join("farcall.yml"))
}

fn post(dir: &Path, call: &Value) -> std::io::Result<String> {
    let answer = post_call(dir, call)?;
    assert_eq!(answer.status, 202, "{}", answer.body);
    Ok(answer.body["id"].as_str().unwrap_or_default().to_owned())
}

fn state(dir: &Path, id: &str) -> Option<String> {
    let answer = get(dir, &format!("/v1/calls/{id}")).ok()?;
    Some(answer.body["state"].as_str()?.to_owned())
}

fn is_gone(dir: &Path, id: &str) -> bool {
    get(dir, &format!("/v1/calls/{id}")).is_ok_and(|answer| answer.status == 404)
}

fn pruned(program: &Program) -> Option<u64> {
    let health = program.health().ok()?;
    assert_identity(&health);
    health["pruned"].as_u64()
}

#[test]
fn calls_go_when_their_time_has_come_by_their_end_and_those_with_keys_stay() -> Outcome {
    let recorder = Recorder::start(|arrival, _| Reply::new(if arrival.path == "/bad" { 400 } else { 200 }))?;
    let dir = tempfile::tempdir()?;
    let upstream = format!("base_url: {}", recorder.url());
    configure(dir.path(), "succeeded: 500ms, failed: none", &upstream)?;
    let program = Program::serve(dir.path())?;
    let call = |path: &str| json!({"upstream": "api", "end_point": path});
    let keyed = json!({"upstream": "api", "end_point": "/keyed", "idempotency_key": "k"});
    let (good, bad) = (post(dir.path(), &call("/good"))?, post(dir.path(), &call("/bad"))?);
    let kept = post(dir.path(), &keyed)?;
    drop_file(dir.path(), "order.json", &call("/file").to_string())?;
    let id = response(dir.path(), "order.json")["id"].as_str().unwrap_or_default().to_owned();
    until("two calls to be pruned", || (pruned(&program)? == 2).then_some(()));
    assert!(is_gone(dir.path(), &good) && is_gone(dir.path(), &id));
    assert_eq!(get(dir.path(), &format!("/v1/calls/{good}/attempts"))?.status, 404);
    assert!(dir.path().join("responses/order.json").exists() && dir.path().join("requests/order.json").exists());

    // One with a key stays, and is what a repetition is answered with.
    assert_eq!(post_call(dir.path(), &keyed)?.body["id"].as_str(), Some(kept.as_str()));
    assert_eq!(state(dir.path(), &kept).as_deref(), Some("succeeded"));

    // A changed configuration holds at once, also for what ended before.
    assert_eq!(state(dir.path(), &bad).as_deref(), Some("failed"));
    configure(dir.path(), "succeeded: 500ms, failed: 1s", &upstream)?;
    until("the failed call to be pruned", || (pruned(&program)? == 3).then_some(()));
    assert!(is_gone(dir.path(), &bad));
    program.kill()?;
    let program = Program::serve(dir.path())?;
    assert_eq!(pruned(&program), Some(3));
    assert_eq!(state(dir.path(), &kept).as_deref(), Some("succeeded"));
    assert_eq!(recorder.arrivals().len(), 4);
    Ok(())
}

#[test]
fn calls_go_before_their_time_when_the_store_holds_too_much_and_no_more_than_that() -> Outcome {
    let recorder = Recorder::start(|arrival, _| Reply::new(if arrival.path == "/bad" { 400 } else { 200 }))?;
    let dir = tempfile::tempdir()?;
    let upstream = format!("base_url: {}", recorder.url());
    configure(dir.path(), "succeeded: none, failed: none, max_size: 4MiB", &upstream)?;
    let program = Program::serve(dir.path())?;
    let call = |path: &str, bytes: usize| json!({"upstream": "api", "end_point": path, "body": "x".repeat(bytes)});
    let keyed = json!({"upstream": "api", "end_point": "/keyed", "idempotency_key": "k"});
    let kept = post(dir.path(), &keyed)?;
    // In rows and in files of their own: 6 MB of each.
    let small = (0..150).map(|_| post(dir.path(), &call("/small", 40_000))).collect::<std::io::Result<Vec<_>>>()?;
    let large = (0..60).map(|_| post(dir.path(), &call("/large", 100_000))).collect::<std::io::Result<Vec<_>>>()?;
    // Last: on a slow machine it would else be old enough to go while most that succeeded are not.
    let bad = post(dir.path(), &call("/bad", 40_000))?;
    let left = |ids: &[String]| ids.iter().filter(|id| !is_gone(dir.path(), id)).count();
    until("what is too much to go", || (left(&large) <= 40).then_some(()));
    until("the counts to add up", || {
        (pruned(&program)? == 210 - left(&small) as u64 - left(&large) as u64).then_some(())
    });
    assert_eq!(left(&small), 0, "the oldest first");
    assert!(left(&large) >= 20, "no more than it takes: {} are left", left(&large));
    assert_eq!((left(&large[..12]), left(&large[45..])), (0, 15), "what ended last is left");
    let bodies = fs::read_dir(dir.path().join(".farcall/bodies"))?;
    let bytes: u64 = bodies.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum();
    assert!(bytes <= 4 << 20, "{bytes} bytes of bodies");
    assert_eq!(state(dir.path(), &bad).as_deref(), Some("failed"), "what went wrong goes last");
    assert_eq!(state(dir.path(), &kept).as_deref(), Some("succeeded"), "a key is kept");
    Ok(())
}

#[test]
fn limits_go_on_counting_calls_that_were_pruned_over_a_kill() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    configure(dir.path(), "succeeded: 300ms", &format!("base_url: {}, limits: [3/1h]", recorder.url()))?;
    let call = json!({"upstream": "api", "end_point": "/"});
    let program = Program::serve(dir.path())?;
    for _ in 0..3 {
        post(dir.path(), &call)?;
    }
    until("all to be pruned", || (pruned(&program)? == 3).then_some(()));
    program.kill()?;
    let program = Program::serve(dir.path())?;
    let id = post(dir.path(), &call)?;
    let reason =
        |id: &str| Some(get(dir.path(), &format!("/v1/calls/{id}")).ok()?.body["wait_reason"].as_str()?.to_owned());
    until("the fourth to wait for the limit", || reason(&id).filter(|reason| reason == "rate_limit"));
    // A window that comes later counts them too.
    configure(dir.path(), "succeeded: 300ms", &format!("base_url: {}, limits: [3/2h]", recorder.url()))?;
    until("the change", || program.log().contains("the changed configuration is applied").then_some(()));
    assert_eq!(reason(&id).as_deref(), Some("rate_limit"));
    assert_eq!(recorder.arrivals().len(), 3);
    Ok(())
}

#[test]
fn under_load_the_counts_add_up_in_every_answer_and_nothing_is_lost() -> Outcome {
    let world = World::new()?;
    world.reconfigure("upstreams:", "retention: { succeeded: 200ms, failed: 200ms }\nupstreams:")?;
    let program = world.launch().serve()?;
    // Looks at the counts all the while.
    world.load_for(Duration::from_secs(4));
    assert!(pruned(&program).is_some_and(|pruned| pruned > 0), "nothing was pruned under load");
    let pruned_of = |program: &Program| {
        let health = program.health().ok()?;
        assert_identity(&health);
        (health["pruned"] == health["accepted"]).then_some(())
    };
    until("all to end and to be pruned", || pruned_of(&program));
    let told = world.told.lock().expect("not poisoned").clone();
    let arrivals = world.upstream.arrivals().len();
    let accepted = told.values().filter(|told| matches!(told, Told::Accepted(_))).count();
    assert!(accepted > 0 && arrivals >= accepted, "{accepted} accepted, {arrivals} arrived");
    // Parents stay until their callbacks have ended: every end was called back.
    let called_back = world.callbacks()?;
    for told in told.values() {
        let Told::Accepted(id) = told else { continue };
        assert!(called_back.iter().any(|(called, state)| called == id && state == "succeeded"), "{id}");
    }
    let bodies = world.dir().join(".farcall/bodies");
    until("the last body to be removed", || (fs::read_dir(&bodies).ok()?.count() == 0).then_some(()));
    Ok(())
}

#[test]
fn files_go_when_they_were_kept_long_enough_and_their_calls_stay() -> Outcome {
    let recorder = Recorder::start(|_, _| Reply::new(200))?;
    let dir = tempfile::tempdir()?;
    let keep = |keep: &str| {
        let text =
            format!("inbox: {{ settle: 50ms{keep} }}\nupstreams:\n  api: {{ base_url: \"{}\" }}\n", recorder.url());
        fs::write(dir.path().join(".farcall.yml.new"), text)?;
        fs::rename(dir.path().join(".farcall.yml.new"), dir.path().join("farcall.yml"))
    };
    keep("")?;
    let program = Program::serve(dir.path())?;
    let call = json!({"upstream": "api", "end_point": "/"}).to_string();
    for name in ["a.json", "b.json"] {
        drop_file(dir.path(), name, &call)?;
    }
    drop_file(dir.path(), "bad.json", "{")?;
    let id = response(dir.path(), "a.json")["id"].as_str().unwrap_or_default().to_owned();
    response(dir.path(), "bad.json");
    until("the pairs", || dir.path().join("requests/b.json").exists().then_some(()));
    until("the rejected file", || dir.path().join("rejected/bad.json").exists().then_some(()));
    fs::write(dir.path().join("responses/notes.txt"), "mine")?;
    // Without a word nothing goes; a changed configuration holds at once.
    keep(", keep: 1s")?;
    let names = |folder: &str| -> Option<Vec<String>> {
        let entries = fs::read_dir(dir.path().join(folder)).ok()?;
        entries.map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
    };
    until("the files to go", || {
        let left = [names("requests")?, names("responses")?, names("rejected")?].concat();
        (left == ["notes.txt"]).then_some(())
    });
    assert_eq!(state(dir.path(), &id).as_deref(), Some("succeeded"));
    assert_eq!(pruned(&program), Some(0));
    // The name is free for the next file.
    drop_file(dir.path(), "a.json", &call)?;
    assert_ne!(response(dir.path(), "a.json")["id"].as_str(), Some(id.as_str()));
    Ok(())
}
