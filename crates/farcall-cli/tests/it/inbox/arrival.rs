//! How files come: slow writers, dead writers, renames, links, files that were there, directories that change.

use std::fs;
use std::io::Write;
use std::time::Duration;

use super::{Outcome, Place, names, said, times_said};
use crate::rig::confined::{has_namespaces, healthy, serve_after};
use crate::rig::{drop_file, pause, response, until};

const SETTLE: Duration = Duration::from_millis(300);
const CONFIG: &str = "inbox: {settle: 300ms}\n";

#[test]
fn a_slow_writer_is_waited_for_and_half_a_file_never_executed() -> Outcome {
    let place = Place::new(CONFIG)?;
    let running = place.serve()?;
    // Only of a writer that was seen to begin is the end awaited: the directory must be watched already.
    drop_file(&place.dir(), "first.json", &place.call(0))?;
    assert_eq!(response(&place.dir(), "first.json")["state"], "succeeded");
    let text = place.call(1);
    // The first half is a whole call of its own, so that only waiting for the writer keeps it from being executed.
    let mut file = fs::File::create(place.path("slow.json"))?;
    file.write_all(text.as_bytes())?;
    pause(SETTLE * 4);
    assert_eq!(place.arrivals(), ["/0"]);
    assert!(!place.path("responses/slow.json").exists());
    file.write_all(b"\n\n  ")?;
    pause(SETTLE * 4);
    assert_eq!(place.arrivals(), ["/0"]);
    drop(file);
    assert_eq!(response(&place.dir(), "slow.json")["state"], "succeeded");
    let request = until("its request", || fs::read_to_string(place.path("requests/slow.json")).ok());
    assert_eq!(request.len(), text.len() + 4);
    assert_eq!(place.arrivals(), ["/0", "/1"]);
    drop(running);
    Ok(())
}

#[test]
fn a_writer_that_dies_half_way_leaves_a_rejected_file() -> Outcome {
    let place = Place::new(CONFIG)?;
    let running = place.serve_watching()?;
    let text = place.call(1);
    let half = &text[..text.len() / 2];
    let mut file = fs::File::create(place.path("dead.json"))?;
    file.write_all(half.as_bytes())?;
    pause(SETTLE * 2);
    assert!(!place.path("responses/dead.json").exists(), "its writer lives");
    // The kernel closes what a dead process had open.
    drop(file);
    assert_eq!(response(&place.dir(), "dead.json")["state"], "rejected");
    until("the rejected file", || {
        fs::read_to_string(place.path("rejected/dead.json")).ok().filter(|kept| kept == half)
    });
    assert!(place.arrivals().is_empty());
    drop(running);
    Ok(())
}

#[test]
fn a_file_whose_writer_began_before_the_start_settles_first() -> Outcome {
    // Long enough for the writer to be heard of again within it on a busy machine, too.
    let settle = Duration::from_secs(3);
    let place = Place::new("inbox: {settle: 3s}\n")?;
    let text = place.call(1);
    let mut file = fs::File::create(place.path("early.json"))?;
    file.write_all(&text.as_bytes()[..10])?;
    // A write is heard only once the directory is watched, which a server that answers need not have come to.
    let running = place.serve_watching()?;
    file.write_all(&text.as_bytes()[10..20])?;
    pause(settle * 2);
    assert!(!place.path("responses/early.json").exists(), "its writer was seen and has not closed it");
    file.write_all(&text.as_bytes()[20..])?;
    drop(file);
    assert_eq!(response(&place.dir(), "early.json")["state"], "succeeded");
    drop(running);
    Ok(())
}

#[test]
fn files_come_by_rename_by_link_by_writing_and_before_the_start() -> Outcome {
    let place = Place::new(CONFIG)?;
    fs::write(place.path("before.json"), place.call(1))?;
    let running = place.serve()?;
    assert_eq!(response(&place.dir(), "before.json")["state"], "succeeded");
    drop_file(&place.dir(), "renamed.json", &place.call(2))?;
    fs::write(place.path("written.json"), place.call(3))?;
    let outside = place.home.path().join("outside");
    fs::write(&outside, place.call(4))?;
    fs::hard_link(&outside, place.path("linked.json"))?;
    for name in ["renamed.json", "written.json", "linked.json"] {
        assert_eq!(response(&place.dir(), name)["state"], "succeeded", "{name}");
    }
    let mut arrivals = place.arrivals();
    arrivals.sort_unstable();
    assert_eq!(arrivals, ["/1", "/2", "/3", "/4"]);
    assert_eq!(fs::read_to_string(&outside)?, place.call(4), "the other name keeps its file");
    drop(running);
    Ok(())
}

#[test]
fn only_names_that_end_in_json_and_are_not_hidden_are_call_files() -> Outcome {
    let place = Place::new(CONFIG)?;
    let running = place.serve()?;
    let ignored = [".hidden.json", "a.json.tmp", "a.json.part", "notes.txt", "a.JSON", "json", ".json"];
    for name in ignored {
        fs::write(place.path(name), place.call(1))?;
    }
    fs::create_dir(place.path("below"))?;
    fs::write(place.path("below/deep.json"), place.call(1))?;
    drop_file(&place.dir(), "last.json", &place.call(2))?;
    response(&place.dir(), "last.json");
    // A scan has passed by all of them, too.
    pause(Duration::from_secs(6));
    assert_eq!(place.arrivals(), ["/2"]);
    assert!(ignored.iter().all(|name| place.path(name).exists()) && place.path("below/deep.json").exists());
    assert_eq!(names(&place.path("responses"))?, ["last.json"]);
    drop(running);
    Ok(())
}

#[test]
fn a_directory_moved_removed_and_made_again_is_watched_again() -> Outcome {
    let place = Place::new(CONFIG)?;
    let running = place.serve()?;
    drop_file(&place.dir(), "one.json", &place.call(1))?;
    response(&place.dir(), "one.json");
    fs::rename(place.dir(), place.home.path().join("moved"))?;
    fs::create_dir(place.dir())?;
    drop_file(&place.dir(), "two.json", &place.call(2))?;
    assert_eq!(response(&place.dir(), "two.json")["state"], "succeeded");
    said(&running, "the working directory was replaced");
    // Watched, and not only found by the next scan: many come in less than the time between two.
    for number in 3..10 {
        drop_file(&place.dir(), format!("{number}.json"), &place.call(number))?;
        response(&place.dir(), format!("{number}.json"));
    }
    fs::remove_dir_all(place.dir())?;
    fs::create_dir(place.dir())?;
    drop_file(&place.dir(), "ten.json", &place.call(10))?;
    assert_eq!(response(&place.dir(), "ten.json")["state"], "succeeded");
    let expected: Vec<String> = (1..=10).map(|number| format!("/{number}")).collect();
    assert_eq!(place.arrivals(), expected);
    Ok(())
}

#[test]
fn without_notifications_files_are_found_by_reading_the_directory() -> Outcome {
    if !has_namespaces() {
        return Ok(());
    }
    let place = Place::new(CONFIG)?;
    let running = healthy(serve_after(&place.dir(), "echo 0 > /proc/sys/user/max_inotify_instances")?, &place.dir());
    for number in 1..=2 {
        let name = format!("{number}.json");
        drop_file(&place.dir(), &name, &place.call(number))?;
        assert_eq!(response(&place.dir(), &name)["state"], "succeeded");
    }
    assert_eq!(times_said(&running, "no notifications of new files"), 1, "{}", running.stderr());
    assert_eq!(place.arrivals(), ["/1", "/2"]);
    Ok(())
}
