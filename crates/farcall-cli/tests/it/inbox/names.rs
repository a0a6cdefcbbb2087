//! Names as bytes: hostile ones, long ones, the same one again and again, and idempotency keys under several.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Outcome, Place, names};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::{drop_file, response, until};

const CONFIG: &str = "inbox: {settle: 100ms}\n";

/// The file once it is there with these contents.
fn await_contents(path: &Path, contents: &[u8]) {
    until(&format!("{}", path.display()), || fs::read(path).ok().filter(|found| found == contents));
}

fn id(response: &Value) -> String {
    response["id"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn names_are_bytes_and_lead_nowhere_else() -> Outcome {
    let place = Place::new(CONFIG)?;
    let running = place.serve()?;
    let long = [&[b'n'; 250][..], b".json"].concat();
    let bytes: [&[u8]; 9] = [
        b"new\nline.json",
        b";$(touch x);`touch x`.json",
        b"-rf.json",
        b"--help.json",
        b"a..json",
        b"a\\..\\b %2e%2e%2fc.json",
        b"\xff\xfe\x80.json",
        "\u{202e}\u{1b}[31mred.json".as_bytes(),
        &long,
    ];
    for (number, name) in bytes.iter().enumerate() {
        let name = OsStr::from_bytes(name);
        for text in [place.call(u32::try_from(number)?), r#"{"../../x": 1}"#.to_owned()] {
            drop_file(&place.dir(), name, &text)?;
            let folder = if text.starts_with(r#"{"url"#) { "requests" } else { "rejected" };
            await_contents(&place.path(folder).join(name), text.as_bytes());
            let state = if folder == "requests" { "succeeded" } else { "rejected" };
            assert_eq!(response(&place.dir(), name)["state"], state, "{name:?}");
        }
    }
    let expected = ["farcall.yml", "rejected", "requests", "responses"];
    assert_eq!(names(&place.dir())?, expected, "something else was made");
    assert_eq!(place.arrivals().len(), bytes.len());
    assert_eq!(names(&place.path("requests"))?.len(), bytes.len());
    assert!(!running.stderr().contains('\u{1b}') && !running.stderr().contains("\nline"), "{}", running.stderr());
    Ok(())
}

#[test]
fn ids_inside_the_document_name_no_file() -> Outcome {
    let place = Place::new(CONFIG)?;
    let running = place.serve()?;
    let mut call: Value = serde_json::from_str(&place.call(1))?;
    call["tags"] = json!(["../../escaped"]);
    call["tenant"] = json!("../escaped");
    call["idempotency_key"] = json!("../../../escaped");
    drop_file(&place.dir(), "order.json", &call.to_string())?;
    assert_eq!(response(&place.dir(), "order.json")["state"], "succeeded");
    drop(running);
    assert_eq!(names(place.home.path())?, ["calls"]);
    assert_eq!(names(&place.path("responses"))?, ["order.json"]);
    Ok(())
}

#[test]
fn the_same_name_and_the_same_content_again_are_calls_of_their_own() -> Outcome {
    let place = Place::new(CONFIG)?;
    let running = place.serve()?;
    let mut ids = Vec::new();
    for round in 0..3 {
        drop_file(&place.dir(), "order.json", &place.call(1))?;
        place.await_arrivals(round + 1);
        let response = until("the next response", || {
            let response = response(&place.dir(), "order.json");
            (!ids.contains(&id(&response))).then_some(response)
        });
        ids.push(id(&response));
        until("its request", || names(&place.path("requests")).ok().filter(|names| names.len() == round + 1));
    }
    let mut expected: Vec<String> = ids[..2].iter().map(|id| format!("order.{id}.json")).collect();
    expected.push("order.json".to_owned());
    expected.sort_unstable();
    for folder in ["responses", "requests"] {
        assert_eq!(names(&place.path(folder))?, expected, "{folder}");
    }
    for earlier in &ids[..2] {
        assert_eq!(id(&response(&place.dir(), format!("order.{earlier}.json"))), *earlier);
    }
    drop(running);
    Ok(())
}

#[test]
fn a_file_of_the_same_name_while_the_earlier_call_runs_owns_the_name_at_once() -> Outcome {
    let upstream = Recorder::start(|arrival, _| {
        let slow = if arrival.path == "/slow" { Duration::from_millis(1_200) } else { Duration::ZERO };
        Reply::new(200).after(slow)
    })?;
    let place = Place::new(CONFIG)?;
    let running = place.serve()?;
    let call = |path: &str| json!({"url": format!("{}/{path}", upstream.url())}).to_string();
    drop_file(&place.dir(), "order.json", &call("slow"))?;
    until("the slow call", || (!upstream.arrivals().is_empty()).then_some(()));
    drop_file(&place.dir(), "order.json", &call("quick"))?;
    let quick = response(&place.dir(), "order.json");
    let slow = until("the slow call's response, under its id", || {
        let names = names(&place.path("responses")).ok()?;
        names.into_iter().find(|name| name.starts_with("order.call_"))
    });
    assert_ne!(slow, format!("order.{}.json", id(&quick)));
    assert_eq!(id(&response(&place.dir(), "order.json")), id(&quick), "the later keeps the name");
    await_contents(&place.path("requests").join(&slow), call("slow").as_bytes());
    await_contents(&place.path("requests/order.json"), call("quick").as_bytes());
    drop(running);
    Ok(())
}

#[test]
fn rejected_then_valid_then_rejected_under_one_name_keeps_everything() -> Outcome {
    let place = Place::new(CONFIG)?;
    let running = place.serve()?;
    drop_file(&place.dir(), "order.json", "{\n1}")?;
    let rejected = response(&place.dir(), "order.json");
    assert_eq!((&rejected["state"], &rejected["error"]["line"]), (&json!("rejected"), &json!(2)));
    assert!(rejected.get("id").is_none());
    await_contents(&place.path("rejected/order.json"), b"{\n1}");
    drop_file(&place.dir(), "order.json", &place.call(1))?;
    let succeeded = until("the call's response", || {
        Some(response(&place.dir(), "order.json")).filter(|response| response["state"] == "succeeded")
    });
    until("the request", || place.path("requests/order.json").exists().then_some(()));
    drop_file(&place.dir(), "order.json", "[]")?;
    await_contents(&place.path("rejected/order.json"), b"[]");
    assert_eq!(response(&place.dir(), "order.json")["error"]["message"], "a call is one JSON object");
    let id_name = format!("order.{}.json", id(&succeeded));
    assert_eq!(names(&place.path("requests"))?, std::slice::from_ref(&id_name));
    let responses = names(&place.path("responses"))?;
    let rejected = names(&place.path("rejected"))?;
    assert!(responses.contains(&id_name) && responses.len() == 3, "{responses:?}");
    let aside = responses.iter().find(|name| name.starts_with("order.rejected-")).expect("the first response");
    assert!(rejected.contains(aside) && rejected.contains(&format!("{aside}.problem.json")), "{rejected:?}");
    assert_eq!(rejected.len(), 4);
    assert_eq!(fs::read(place.path("rejected").join(aside))?, b"{\n1}");
    drop(running);
    Ok(())
}

#[test]
fn names_too_long_for_an_id_are_shortened_and_nothing_is_lost() -> Outcome {
    let place = Place::new(CONFIG)?;
    let running = place.serve()?;
    let long: Vec<PathBuf> = ['a', 'b'].map(|last| PathBuf::from(format!("{}{last}.json", "n".repeat(249)))).into();
    for round in 0..2 {
        for name in &long {
            drop_file(&place.dir(), name, &place.call(round))?;
            await_contents(&place.path("requests").join(name), place.call(round).as_bytes());
            drop_file(&place.dir(), name, "{")?;
            await_contents(&place.path("rejected").join(name), b"{");
        }
    }
    assert_eq!(names(&place.path("requests"))?.len(), 4);
    assert_eq!(names(&place.path("responses"))?.len(), 8);
    assert_eq!(names(&place.path("rejected"))?.len(), 8, "four files, four problems");
    drop(running);
    Ok(())
}

#[test]
fn one_key_in_several_files_is_one_call_and_other_content_is_rejected() -> Outcome {
    let upstream = Recorder::start(|_, _| Reply::new(200).after(Duration::from_millis(300)))?;
    let place = Place::new(CONFIG)?;
    let running = place.serve_watching()?;
    let call = |note: &str| json!({"url": upstream.url(), "idempotency_key": "k-1", "tags": [note]}).to_string();
    drop_file(&place.dir(), "first.json", &call("x"))?;
    drop_file(&place.dir(), "copy.json", &call("x"))?;
    drop_file(&place.dir(), "other.json", &call("y"))?;
    let other = response(&place.dir(), "other.json");
    assert_eq!(other["state"], "rejected", "{other}");
    let (first, copy) = (response(&place.dir(), "first.json"), response(&place.dir(), "copy.json"));
    assert_eq!(first, copy, "the copy is one of the first outcome");
    drop_file(&place.dir(), "late.json", &call("x"))?;
    assert_eq!(response(&place.dir(), "late.json"), first);
    for name in ["first.json", "copy.json", "late.json"] {
        await_contents(&place.path("requests").join(name), call("x").as_bytes());
    }
    assert_eq!(upstream.arrivals().len(), 1);
    drop(running);
    Ok(())
}
