//! `farcall demo` from beginning to end, as a script runs it.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::rig::command::start;
use crate::rig::until;

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[test]
fn the_tour_comes_out_as_promised_and_ends_without_a_terminal() -> Outcome {
    let parent = tempfile::tempdir()?;
    let dir = parent.path().join("tour");
    let finished = start([Path::new("demo"), &dir], [])?.finish()?;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{}", finished.stdout);
    assert!(!finished.stdout.contains(['✗', '\u{1b}']), "{}", finished.stdout);
    assert_eq!(finished.stdout.matches('✓').count(), 6, "{}", finished.stdout);
    for name in ["responses/order.json", "requests/flaky.json", "responses/item-15.json", "rejected/broken.json"] {
        assert!(dir.join(name).exists(), "{name} is missing");
    }
    let callbacks = fs::read_to_string(dir.join("callbacks.log"))?;
    assert_eq!(callbacks.lines().count(), 2, "{callbacks}");
    Ok(())
}

#[test]
fn by_default_it_makes_a_directory_of_its_own() -> Outcome {
    let running = start(["demo"], [])?;
    let dir = running.home().join("farcall-demo-1");
    until("the first response", || dir.join("responses/order.json").exists().then_some(()));
    running.signal(Signal::INT)?;
    let finished = running.finish()?;
    assert_eq!(finished.code, Some(130));
    Ok(())
}

#[test]
fn a_directory_that_holds_anything_is_left_alone() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("mine"), "")?;
    let finished = start([Path::new("demo"), dir.path()], [])?.finish()?;
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("is not empty"), "{}", finished.stderr);
    assert_eq!(fs::read_dir(dir.path())?.count(), 1);
    Ok(())
}
