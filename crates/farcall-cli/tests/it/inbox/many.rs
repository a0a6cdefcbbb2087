//! Very many files at once.

use std::fs;
use std::time::Duration;

use super::{Outcome, Place, names};
use crate::rig::{pause, until};

/// Of the 50,000 in a second that are promised, what fits into every run of the tests.
const FILES: u32 = 5_000;

#[test]
fn thousands_of_files_renamed_in_while_serving_are_each_executed_once() -> Outcome {
    let place = Place::new("defaults: {concurrency: 64}\n")?;
    let running = place.serve()?;
    let stage = place.path(".stage");
    fs::create_dir(&stage)?;
    for number in 0..FILES {
        fs::write(stage.join(format!("{number}.json")), place.call(number))?;
    }
    for number in 0..FILES {
        fs::rename(stage.join(format!("{number}.json")), place.path(format!("{number}.json")))?;
    }
    until("all requests to be filed", || {
        pause(Duration::from_millis(100));
        names(&place.path("requests")).ok().filter(|names| names.len() == FILES as usize)
    });
    assert_eq!(names(&place.path("responses"))?.len(), FILES as usize);
    let mut arrivals = place.arrivals();
    arrivals.sort_unstable();
    let mut expected: Vec<String> = (0..FILES).map(|number| format!("/{number}")).collect();
    expected.sort_unstable();
    assert_eq!(arrivals, expected);
    drop(running);
    Ok(())
}
