//! Files that were kept long enough: which go, which stay, and in what order.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::result_file::Removed;

/// Everything that was changed so far is old.
const ALWAYS: i64 = i64::MAX;

impl Bench {
    /// Removes what is old, and has no call of these; how many files went.
    fn remove_old(&self, before_ns: i64, unfiled: &[CallId]) -> usize {
        let mut old_files = self.filing.old_files().expect("the folders are there");
        let mut files = 0;
        loop {
            let is_unfiled = |call| Ok::<_, FileError>(unfiled.contains(&call));
            let step = old_files.go_on(&self.filing, (3, before_ns), is_unfiled).expect("files can be removed");
            files += step.files;
            if step.is_over {
                assert_eq!(
                    old_files.go_on(&self.filing, (3, before_ns), |_| Ok::<_, FileError>(false)),
                    Ok(Removed { files: 0, is_over: true })
                );
                return files;
            }
        }
    }

    fn drop_and_reject(&self, name: &[u8]) {
        assert_eq!(self.reject(&self.drop_in(name, "no call")), RejectedOutcome::Filed);
    }

    fn changed_ns(&self, name: &str) -> i64 {
        let metadata = fs::symlink_metadata(self.dir.path().join(name)).expect("it is there");
        metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec()
    }
}

#[test]
fn a_pair_goes_together_when_both_are_old_and_a_rejected_file_with_all_that_belongs_to_it() {
    let bench = Bench::new();
    bench.file(&ended(1, b"order.json"));
    bench.file(&ended(2, b"\xff.json"));
    bench.drop_and_reject(b"bad.json");
    assert_eq!(bench.names().len(), 7);
    assert_eq!(bench.remove_old(bench.changed_ns("requests/order.json"), &[]), 0, "none is older than that");
    assert_eq!(bench.remove_old(ALWAYS, &[]), 7);
    assert_eq!(bench.names(), [""; 0]);
}

#[test]
fn the_youngest_of_a_name_counts() {
    let bench = Bench::new();
    bench.file(&ended(1, b"order.json"));
    let response = bench.dir.path().join("responses/order.json");
    let before_ns = bench.changed_ns("requests/order.json").max(bench.changed_ns("responses/order.json")) + 1;
    // Until the file system's clock has gone on.
    while bench.changed_ns("responses/order.json") < before_ns {
        fs::set_permissions(&response, fs::metadata(&response).expect("it is there").permissions())
            .expect("it is ours");
    }
    assert_eq!(bench.remove_old(before_ns, &[]), 0);
    fs::remove_file(response).expect("a poller may remove it");
    assert_eq!(bench.remove_old(before_ns, &[]), 1, "a request alone counts by itself");
}

#[test]
fn calls_that_are_not_filed_keep_their_files() {
    let bench = Bench::new();
    bench.file(&ended(1, b"order.json"));
    bench.file(&ended(2, b"order.json"));
    assert_eq!(bench.remove_old(ALWAYS, &[id(1), id(2)]), 0);
    assert_eq!(bench.remove_old(ALWAYS, &[id(2)]), 2);
    assert!(bench.names().contains(&"requests/order.json".to_owned()), "{:?}", bench.names());
}

#[test]
fn what_is_no_file_of_a_call_stays_and_no_link_is_followed() {
    let bench = Bench::new();
    bench.file(&ended(1, b"order.json"));
    bench.file(&ended(2, b"linked.json"));
    let path = |name: &str| bench.dir.path().join(name);
    fs::write(path("requests/.keep"), "").expect("it can be written");
    fs::write(path("responses/notes.txt"), "").expect("it can be written");
    fs::write(path("outside.json"), "kept").expect("it can be written");
    fs::create_dir(path("responses/folder.json")).expect("it can be made");
    fs::remove_file(path("responses/linked.json")).expect("it is there");
    std::os::unix::fs::symlink("../outside.json", path("responses/linked.json")).expect("it can be linked");
    assert_eq!(bench.remove_old(ALWAYS, &[]), 2);
    let left = ["/outside.json", "requests/.keep", "requests/linked.json", "responses/notes.txt"];
    assert_eq!(bench.names(), left, "a name with something else under it is left alone");
    assert!(path("responses/folder.json").exists() && path("responses/linked.json").symlink_metadata().is_ok());
}

#[test]
fn long_names_of_rejected_files_go_with_their_problem_files() {
    let bench = Bench::new();
    let long = [&[b'a'; 245][..], b".json"].concat();
    bench.drop_and_reject(&long);
    assert_eq!(bench.remove_old(ALWAYS, &[]), 3);
    assert_eq!(bench.names(), [""; 0]);
}
