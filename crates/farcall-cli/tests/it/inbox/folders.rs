//! `responses/`, `requests/`, `rejected/` and `.farcall`: missing, unwritable, full, links, files, other file systems.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::json;

use super::{Outcome, Place, names, said, times_said};
use crate::rig::confined::{has_namespaces, healthy, seen_by, serve_after, serve_as_nobody};
use crate::rig::{drop_file, pause, response, until};

const FOLDERS: [&str; 3] = ["requests", "responses", "rejected"];

fn chmod(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[test]
fn a_file_or_a_link_in_a_folders_place_is_refused_with_7() -> Outcome {
    for folder in FOLDERS.into_iter().chain([".farcall"]) {
        for is_link in [false, true] {
            let place = Place::new("")?;
            drop_file(&place.dir(), "order.json", &place.call(1))?;
            let elsewhere = place.home.path().join("elsewhere");
            fs::create_dir(&elsewhere)?;
            match is_link {
                true => symlink(&elsewhere, place.path(folder))?,
                false => fs::write(place.path(folder), "not a folder")?,
            }
            let finished = place.spawn()?.finish()?;
            assert_eq!(finished.code, Some(7), "{folder}: {}", finished.stderr);
            assert!(finished.stderr.contains(folder), "{}", finished.stderr);
            assert!(place.path("order.json").exists() && place.arrivals().is_empty(), "{folder}");
            assert_eq!(fs::read_dir(&elsewhere)?.count(), 0, "{folder}: something was written through a link");
        }
    }
    Ok(())
}

#[test]
fn the_private_folder_becomes_its_owners_alone() -> Outcome {
    let place = Place::new("")?;
    fs::create_dir(place.path(".farcall"))?;
    chmod(&place.path(".farcall"), 0o755)?;
    let running = place.serve()?;
    assert_eq!(fs::metadata(place.path(".farcall"))?.permissions().mode() & 0o7777, 0o700);
    drop(running);
    Ok(())
}

#[test]
fn nothing_is_filed_through_a_link_that_appears_while_serving() -> Outcome {
    for folder in FOLDERS {
        let place = Place::new("inbox: {settle: 100ms}\n")?;
        let running = place.serve()?;
        drop_file(&place.dir(), "first.json", &place.call(1))?;
        response(&place.dir(), "first.json");
        let elsewhere = place.home.path().join("elsewhere");
        fs::create_dir(&elsewhere)?;
        until("the first call's request", || place.path("requests/first.json").exists().then_some(()));
        fs::rename(place.path(folder), place.home.path().join("aside"))?;
        symlink(&elsewhere, place.path(folder))?;
        drop_file(&place.dir(), "second.json", &place.call(2))?;
        place.await_arrivals(2);
        said(&running, "links are not followed");
        fs::remove_file(place.path(folder))?;
        assert_eq!(response(&place.dir(), "second.json")["state"], "succeeded");
        until("its request", || place.path("requests/second.json").exists().then_some(()));
        assert_eq!(fs::read_dir(&elsewhere)?.count(), 0, "{folder}: written through a link");
        assert_eq!(place.arrivals(), ["/1", "/2"]);
    }
    Ok(())
}

#[test]
fn folders_removed_while_serving_are_made_again() -> Outcome {
    let place = Place::new("")?;
    let running = place.serve()?;
    for number in 1..=3 {
        for folder in FOLDERS {
            fs::remove_dir_all(place.path(folder))?;
        }
        drop_file(&place.dir(), "order.json", &place.call(number))?;
        assert_eq!(response(&place.dir(), "order.json")["state"], "succeeded");
        until("the request file", || place.path("requests/order.json").exists().then_some(()));
    }
    assert_eq!(place.arrivals(), ["/1", "/2", "/3"]);
    drop(running);
    Ok(())
}

#[test]
fn an_unwritable_folder_keeps_the_outcome_waiting_and_executes_nothing_twice() -> Outcome {
    for folder in ["requests", "responses"] {
        let place = Place::new("")?;
        chmod(&place.dir(), 0o700)?;
        let running = healthy(serve_as_nobody(&place.dir())?, &place.dir());
        chmod(&place.path(folder), 0o500)?;
        drop_file(&place.dir(), "order.json", &place.call(1))?;
        place.await_arrivals(1);
        said(&running, "cannot put response files in place, trying again");
        // Tried again meanwhile, in vain.
        pause(std::time::Duration::from_millis(1_500));
        assert!(!place.path("requests/order.json").exists() && !place.path("order.json").exists());
        assert_eq!(times_said(&running, "cannot put response files in place"), 1, "{}", running.stderr());
        chmod(&place.path(folder), 0o700)?;
        assert_eq!(response(&place.dir(), "order.json")["state"], "succeeded");
        until("the request file", || place.path("requests/order.json").exists().then_some(()));
        assert_eq!(place.arrivals(), ["/1"], "{folder}");
    }
    Ok(())
}

#[test]
fn folders_on_other_file_systems_get_whole_files() -> Outcome {
    if !has_namespaces() {
        return Ok(());
    }
    let place = Place::new("inbox: {settle: 100ms}\n")?;
    let mounts = "cd \"$1\"; for f in requests responses rejected; do mkdir $f; mount -t tmpfs tmpfs $f; done";
    let running = healthy(serve_after(&place.dir(), mounts)?, &place.dir());
    drop_file(&place.dir(), "good.json", &place.call(1))?;
    drop_file(&place.dir(), "bad.json", "{")?;
    let seen = seen_by(&running, &place.dir());
    assert_eq!(response(&seen, "good.json")["state"], "succeeded");
    assert_eq!(response(&seen, "bad.json")["state"], "rejected");
    let request = until("the request file", || fs::read_to_string(seen.join("requests/good.json")).ok());
    assert_eq!(request, place.call(1));
    until("the rejected file", || fs::read_to_string(seen.join("rejected/bad.json")).ok().filter(|text| text == "{"));
    assert_eq!(names(&place.dir())?, ["farcall.yml", "rejected", "requests", "responses"]);
    assert_eq!(fs::read_dir(place.path("responses"))?.count(), 0, "it lies on the other file system");
    assert_eq!(fs::read_dir(place.path(".farcall/taken"))?.count(), 0);
    Ok(())
}

#[test]
fn a_full_file_system_holds_no_half_response_and_gets_it_when_there_is_space() -> Outcome {
    if !has_namespaces() {
        return Ok(());
    }
    let place = Place::new("")?;
    let mounts = "cd \"$1\"; mkdir responses; mount -t tmpfs -o size=64k tmpfs responses; \
                  head -c 65536 /dev/zero > responses/.ballast";
    let running = healthy(serve_after(&place.dir(), mounts)?, &place.dir());
    drop_file(&place.dir(), "order.json", &place.call(1))?;
    place.await_arrivals(1);
    said(&running, "cannot put response files in place, trying again");
    let seen = seen_by(&running, &place.dir());
    assert_eq!(names(&seen.join("responses"))?, [""; 0], "half a response");
    fs::remove_file(seen.join("responses/.ballast"))?;
    assert_eq!(response(&seen, "order.json")["state"], "succeeded");
    until("the request file", || place.path("requests/order.json").exists().then_some(()));
    assert_eq!(place.arrivals(), ["/1"]);
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_with_7() -> Outcome {
    let place = Place::new("")?;
    drop_file(&place.dir(), "order.json", &json!({"url": place.upstream.url()}).to_string())?;
    chmod(&place.dir(), 0o500)?;
    let finished = serve_as_nobody(&place.dir())?.finish()?;
    assert_eq!(finished.code, Some(7), "{}", finished.stderr);
    chmod(&place.dir(), 0o700)?;
    assert!(place.path("order.json").exists() && place.arrivals().is_empty());
    Ok(())
}

#[test]
fn a_read_only_file_system_is_refused_with_7() -> Outcome {
    if !has_namespaces() {
        return Ok(());
    }
    let place = Place::new("")?;
    let mounts = "mount --bind \"$1\" \"$1\"; mount -o remount,bind,ro \"$1\"";
    let finished = serve_after(&place.dir(), mounts)?.finish()?;
    assert_eq!(finished.code, Some(7), "{}", finished.stderr);
    Ok(())
}
