//! Files and folders swapped for links in the very moment they are looked at.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Outcome, Place, names};
use crate::rig::{drop_file, pause, response, until};

/// Of the ten seconds that are promised, what fits into every run of the tests.
const RACE: Duration = Duration::from_secs(3);

/// Puts a link to `target` in place of whatever has the name.
fn put_link(target: &Path, dir: &Path, name: &str) -> std::io::Result<()> {
    let hidden = dir.join(".link");
    let _ = fs::remove_file(&hidden);
    symlink(target, &hidden)?;
    fs::rename(hidden, dir.join(name))
}

#[test]
fn a_call_file_swapped_for_a_link_is_never_followed_and_none_is_executed_twice() -> Outcome {
    let place = Place::new("inbox: {settle: 50ms}\n")?;
    let secret = place.home.path().join("secret");
    fs::write(&secret, place.call(999_999))?;
    let running = place.serve()?;
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < RACE {
        number += 1;
        drop_file(&place.dir(), "race.json", &place.call(number))?;
        put_link(&secret, &place.dir(), "race.json")?;
        // Half a call, or one that is longer than the file was when it was looked at.
        drop_file(&place.dir(), "race.json", &place.call(number)[..20])?;
        fs::write(place.path("race.json"), format!("{}{}", place.call(number), " ".repeat(5_000)))?;
        let _ = fs::remove_file(place.path("race.json"));
    }
    drop_file(&place.dir(), "last.json", &place.call(0))?;
    assert_eq!(response(&place.dir(), "last.json")["state"], "succeeded", "it still serves");
    assert_eq!(fs::read_to_string(&secret)?, place.call(999_999));
    let arrivals = place.arrivals();
    assert!(!arrivals.contains(&"/999999".to_owned()), "a link was followed");
    // Each number was dropped as two files at most.
    for path in arrivals.iter().collect::<HashSet<_>>() {
        assert!(arrivals.iter().filter(|other| *other == path).count() <= 2, "{path} was executed too often");
    }
    drop(running);
    Ok(())
}

#[test]
fn a_file_dropped_over_another_is_never_lost() -> Outcome {
    let place = Place::new("inbox: {settle: 50ms}\n")?;
    let running = place.serve()?;
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < RACE {
        number += 1;
        drop_file(&place.dir(), "order.json", &place.call(number))?;
        // Sooner or later it comes between the last look at the first and its removal.
        pause(Duration::from_micros(u64::from(number % 50) * 100));
        drop_file(&place.dir(), "order.json", &place.call(number + 1_000_000))?;
        let last = format!("/{}", number + 1_000_000);
        // The earlier may be gone unread, as its producer wanted; the last one of a name must be executed.
        until("the file dropped last", || place.arrivals().contains(&last).then_some(()));
    }
    let mut seen = HashSet::new();
    assert!(place.arrivals().into_iter().all(|path| seen.insert(path)), "one was executed twice");
    drop(running);
    Ok(())
}

#[test]
fn a_folder_swapped_for_a_link_gets_nothing_filed_elsewhere() -> Outcome {
    let place = Place::new("inbox: {settle: 50ms}\n")?;
    let running = place.serve()?;
    let elsewhere = place.home.path().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Outcome {
        let swapping = scope.spawn(|| -> std::io::Result<()> {
            let aside = place.home.path().join("aside");
            while !stop.load(Ordering::Relaxed) {
                fs::rename(place.path("responses"), &aside)?;
                let _ = symlink(&elsewhere, place.path("responses"));
                // A folder that was made meanwhile is not ours to remove while something is in it.
                let _ = fs::remove_file(place.path("responses"));
                if fs::rename(&aside, place.path("responses")).is_err() {
                    fs::remove_dir_all(&aside)?;
                }
            }
            Ok(())
        });
        let begun = Instant::now();
        let mut number = 0;
        while begun.elapsed() < RACE {
            number += 1;
            drop_file(&place.dir(), format!("{number}.json"), &place.call(number))?;
            place.await_arrivals(number as usize);
        }
        stop.store(true, Ordering::Relaxed);
        swapping.join().expect("the swapping thread does not panic")?;
        until("all requests", || names(&place.path("requests")).ok().filter(|names| names.len() == number as usize));
        assert_eq!(place.arrivals().len(), number as usize);
        Ok(())
    })?;
    assert_eq!(fs::read_dir(&elsewhere)?.count(), 0, "something was filed through a link");
    drop(running);
    Ok(())
}
