//! Files put in place, names given, crashes at every step.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use farcall_core::time::Timestamp;
use farcall_store::record::FileIdentity;
use tempfile::TempDir;

use super::*;
use crate::document::{Rejection, RejectionKind};

mod old;
mod pairs;

/// Long before any file of a test is written.
const ACCEPTED_MICROS: i64 = 1_577_836_800_000_000;

/// Everything below a working directory: names as shown, contents as text.
type Tree = BTreeMap<String, String>;

struct Bench {
    dir: TempDir,
    filing: Filing,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let filing = Filing::new(dir.path(), 1);
        Self { dir, filing }
    }

    /// As after kill -9: what was in memory is gone, what was half written is swept.
    fn restart(&mut self) {
        self.filing = Filing::new(self.dir.path(), self.filing.run + 1);
        self.filing.sweep(1, || true).expect("leftovers can be removed");
    }

    fn file(&self, ended: &Ended) -> PathBuf {
        let mut results = self.filing.file(std::slice::from_ref(ended));
        results.pop().expect("one result").expect("it can be filed")
    }

    fn drop_in(&self, name: &[u8], contents: &str) -> FileIdentity {
        let path = self.dir.path().join(OsStr::from_bytes(name));
        fs::write(&path, contents).expect("the inbox can be written");
        let meta = fs::symlink_metadata(&path).expect("it was just written");
        let changed_ns = meta.ctime() * 1_000_000_000 + meta.ctime_nsec();
        FileIdentity { name: name.to_vec(), device: meta.dev(), inode: meta.ino(), changed_ns }
    }

    fn reject(&self, file: &FileIdentity) -> RejectedOutcome {
        let rejection = rejection();
        let mut results = self.filing.reject(&[Rejected { file, rejection: &rejection }]);
        results.pop().expect("one result").expect("it can be rejected")
    }

    fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        for folder in ["", "requests", "responses", "rejected"] {
            let Ok(entries) = fs::read_dir(self.dir.path().join(folder)) else { continue };
            for entry in entries {
                let entry = entry.expect("the folder can be read");
                if entry.file_type().expect("entries have a type").is_file() {
                    let name = entry.file_name().as_bytes().escape_ascii().to_string();
                    let contents = fs::read_to_string(entry.path()).expect("the file can be read");
                    tree.insert(format!("{folder}/{name}"), contents);
                }
            }
        }
        tree
    }

    fn names(&self) -> Vec<String> {
        self.tree().into_keys().collect()
    }
}

fn id(number: u128) -> CallId {
    CallId::new(Timestamp::from_micros(ACCEPTED_MICROS), number)
}

fn ended(number: u128, name: &[u8]) -> Ended {
    let id = id(number);
    Ended {
        id,
        file: FileIdentity { name: name.to_vec(), device: 0, inode: 0, changed_ns: 0 },
        is_again: true,
        response: format!("{{\"id\":\"{id}\",\"state\":\"succeeded\"}}\n").into_bytes(),
        request: Bytes::from(format!("request {number}")),
    }
}

fn rejection() -> Rejection {
    Rejection { kind: RejectionKind::Invalid, message: "wrong".to_owned(), key: None, line: None, column: None }
}

fn expected(entries: &[(&str, &str)]) -> Tree {
    entries.iter().map(|&(name, contents)| (name.to_owned(), contents.to_owned())).collect()
}

fn response_of(number: u128) -> String {
    String::from_utf8(ended(number, b"").response).expect("it is text")
}

#[test]
fn an_ended_call_has_a_response_and_its_request_as_it_came() {
    let bench = Bench::new();
    let path = bench.file(&ended(1, b"order.json"));
    assert_eq!(path, bench.dir.path().join("responses/order.json"));
    assert_eq!(
        bench.tree(),
        expected(&[("requests/order.json", "request 1"), ("responses/order.json", &response_of(1))])
    );
}

#[test]
fn hostile_names_are_only_names() {
    let bench = Bench::new();
    let long = [&[b'x'; 250][..], b".json"].concat();
    let names: [&[u8]; 7] =
        [b"a\nb.json", b"$(touch x);'.json", b"-rf.json", b"\"quoted\".json", b"\xff\xfe.json", b"..json", &long];
    let batch: Vec<Ended> = names.iter().zip(1..).map(|(name, number)| ended(number, name)).collect();
    for (name, path) in names.iter().zip(bench.filing.file(&batch)) {
        let path = path.expect("it can be filed");
        assert_eq!(path.file_name().map(OsStr::as_bytes), Some(*name));
        assert!(bench.dir.path().join("requests").join(OsStr::from_bytes(name)).is_file());
    }
    for name in names {
        let file = bench.drop_in(name, "not a call");
        assert_eq!(bench.reject(&file), RejectedOutcome::Filed, "{}", name.escape_ascii());
    }
    // Each name: an earlier pair, the rejected file, its response and its problem.
    assert_eq!(bench.names().len(), 5 * names.len());
    assert!(bench.names().iter().all(|name| !name.starts_with('/')), "the inbox is empty");
}

#[test]
fn a_pair_placed_before_a_crash_is_not_placed_again_beside_a_later_claim() {
    let mut bench = Bench::new();
    bench.file(&ended(1, b"order.json"));
    bench.restart();
    bench.filing.claim(b"order.json", id(1));
    bench.filing.claim(b"order.json", id(2));
    bench.file(&ended(1, b"order.json"));
    assert_eq!(bench.names(), ["requests/order.json", "responses/order.json"]);
    bench.filing.make_way(&[(b"order.json", id(2))]).expect("the pair can be moved aside");
    bench.file(&ended(2, b"order.json"));
    let aside = format!("order.{}.json", id(1));
    let names = [format!("requests/{aside}"), "requests/order.json".to_owned()];
    assert_eq!(bench.names()[..2], names, "each pair once");
    assert_eq!(bench.names().len(), 4);
}

#[test]
fn many_calls_are_filed_in_one_batch() {
    let bench = Bench::new();
    let batch: Vec<Ended> = (0..300).map(|number| ended(number, format!("{number}.json").as_bytes())).collect();
    assert!(bench.filing.file(&batch).iter().all(Result::is_ok));
    let tree = bench.tree();
    assert_eq!(tree.len(), 600);
    assert_eq!(tree["responses/299.json"], response_of(299));
}

#[test]
fn the_same_name_three_times_keeps_every_pair() {
    let bench = Bench::new();
    for number in 1..=3 {
        bench.filing.claim(b"order.json", id(number));
        bench.filing.make_way(&[(b"order.json", id(number))]).expect("there is room");
        bench.file(&ended(number, b"order.json"));
    }
    let (a, b) = (id(1), id(2));
    let all = expected(&[
        ("requests/order.json", "request 3"),
        ("responses/order.json", &response_of(3)),
        (&format!("requests/order.{a}.json"), "request 1"),
        (&format!("responses/order.{a}.json"), &response_of(1)),
        (&format!("requests/order.{b}.json"), "request 2"),
        (&format!("responses/order.{b}.json"), &response_of(2)),
    ]);
    assert_eq!(bench.tree(), all);
}

#[test]
fn an_earlier_call_that_ends_later_is_filed_under_its_id() {
    for restarted in [false, true] {
        let mut bench = Bench::new();
        bench.filing.claim(b"order.json", id(1));
        bench.filing.claim(b"order.json", id(2));
        bench.file(&ended(2, b"order.json"));
        if restarted {
            // Only the unfiled call is claimed again; the file itself tells who came later.
            bench.restart();
            bench.filing.claim(b"order.json", id(1));
        }
        let path = bench.file(&ended(1, b"order.json"));
        assert_eq!(path.file_name(), Some(OsStr::new(&format!("order.{}.json", id(1)))));
        assert_eq!(bench.tree()["responses/order.json"], response_of(2));
    }
}

#[test]
fn a_later_call_filed_before_way_was_made_moves_the_earlier_pair_itself() {
    let bench = Bench::new();
    bench.file(&ended(1, b"order.json"));
    bench.file(&ended(2, b"order.json"));
    bench.filing.make_way(&[(b"order.json", id(2))]).expect("there is nothing left to do");
    let tree = bench.tree();
    assert_eq!(tree["responses/order.json"], response_of(2));
    assert_eq!(tree["requests/order.json"], "request 2");
    assert_eq!(tree[&format!("requests/order.{}.json", id(1))], "request 1");
    assert_eq!(tree.len(), 4);
}

#[test]
fn a_rejected_file_takes_the_name_and_gives_it_up_again() {
    let bench = Bench::new();
    bench.file(&ended(1, b"order.json"));
    let file = bench.drop_in(b"order.json", "not a call");
    assert_eq!(bench.reject(&file), RejectedOutcome::Filed);
    let tree = bench.tree();
    assert_eq!(tree["responses/order.json"].as_bytes(), rejected_response(&rejection()));
    assert_eq!(tree["rejected/order.json"], "not a call");
    assert_eq!(tree["rejected/order.json.problem.json"].as_bytes(), problem(&rejection()));
    assert_eq!(tree[&format!("responses/order.{}.json", id(1))], response_of(1));
    assert_eq!(tree[&format!("requests/order.{}.json", id(1))], "request 1");
    assert_eq!(tree.len(), 5);

    let later = CallId::new(crate::clock::now().timestamp, 7);
    bench.filing.make_way(&[(b"order.json", later)]).expect("there is room");
    let aside: Vec<String> = bench.names().into_iter().filter(|name| name.contains("rejected-")).collect();
    assert_eq!(aside.len(), 3, "{aside:?}");
    let stem = aside[0].trim_start_matches("rejected/").trim_end_matches(".json");
    assert_eq!(aside[1], format!("rejected/{stem}.json.problem.json"));
    assert_eq!(aside[2], format!("responses/{stem}.json"));
    assert_eq!(bench.names().len(), 5);
}

#[test]
fn a_call_waiting_while_a_file_of_its_name_is_rejected_is_filed_under_its_id() {
    for restarted in [false, true] {
        let mut bench = Bench::new();
        bench.filing.claim(b"order.json", id(1));
        let file = bench.drop_in(b"order.json", "not a call");
        bench.reject(&file);
        if restarted {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_micros(ACCEPTED_MICROS as u64 + 5_000_000);
            let response = fs::File::options().write(true).open(bench.dir.path().join("responses/order.json"));
            response.and_then(|file| file.set_modified(at)).expect("its time can be set");
            bench.restart();
            bench.filing.claim(b"order.json", id(1));
        }
        let path = bench.file(&ended(1, b"order.json"));
        assert_eq!(path.file_name(), Some(OsStr::new(&format!("order.{}.json", id(1)))));
        assert_eq!(bench.tree()["rejected/order.json"], "not a call");
    }
}

#[test]
fn a_request_whose_response_was_taken_away_still_gets_its_calls_name() {
    let bench = Bench::new();
    bench.file(&ended(1, b"order.json"));
    fs::remove_file(bench.dir.path().join("responses/order.json")).expect("a poller may remove it");
    bench.filing.make_way(&[(b"order.json", id(2))]).expect("there is room");
    assert_eq!(bench.names(), [format!("requests/order.{}.json", id(1))]);
}

#[test]
fn files_of_strangers_are_moved_aside_not_overwritten() {
    let bench = Bench::new();
    for folder in ["responses", "requests", "rejected"] {
        fs::create_dir(bench.dir.path().join(folder)).expect("it is new");
        fs::write(bench.dir.path().join(folder).join("order.json"), folder).expect("it can be written");
    }
    fs::write(bench.dir.path().join("rejected/order.json.problem.json"), "problem").expect("it can be written");
    let now = CallId::new(crate::clock::now().timestamp, 7);
    bench.filing.make_way(&[(b"order.json", now)]).expect("there is room");
    let tree = bench.tree();
    let mut contents: Vec<&str> = tree.values().map(String::as_str).collect();
    contents.sort_unstable();
    assert_eq!(contents, ["problem", "rejected", "requests", "responses"]);
    assert!(tree.keys().all(|name| !name.ends_with("/order.json")), "{tree:?}");
}

#[test]
fn filing_again_changes_nothing() {
    let mut bench = Bench::new();
    bench.file(&ended(1, b"order.json"));
    let before = bench.tree();
    bench.restart();
    bench.file(&ended(1, b"order.json"));
    assert_eq!(bench.tree(), before);
    bench.filing.make_way(&[(b"order.json", id(2))]).expect("there is room");
    let aside = bench.tree();
    bench.restart();
    bench.file(&ended(1, b"order.json"));
    assert_eq!(bench.tree(), aside, "a pair moved aside is still filed");
}

#[test]
fn a_crash_at_any_step_of_filing_leaves_one_pair() {
    for earlier in [false, true] {
        for steps in 0..=3 {
            let mut bench = Bench::new();
            if earlier {
                bench.file(&ended(1, b"order.json"));
            }
            let calls = [ended(2, b"order.json")];
            let folders = Folders::open(bench.dir.path()).expect("it can be opened");
            let mut batch = ended::Batch::new(&bench.filing, &folders, &calls);
            for step in 0..steps {
                match step {
                    0 => batch.write(),
                    1 => batch.place_responses(),
                    _ => batch.place_requests(),
                }
            }
            drop(batch);
            bench.restart();
            bench.file(&calls[0]);
            let tree = bench.tree();
            assert_eq!(tree["responses/order.json"], response_of(2), "after {steps} steps");
            assert_eq!(tree["requests/order.json"], "request 2", "after {steps} steps");
            assert_eq!(tree.len(), if earlier { 4 } else { 2 }, "after {steps} steps: {tree:?}");
        }
    }
}

#[test]
fn a_crash_at_any_step_of_making_way_is_made_good() {
    for steps in 0..=2 {
        let mut bench = Bench::new();
        bench.file(&ended(1, b"order.json"));
        let folders = Folders::open(bench.dir.path()).expect("it can be opened");
        let moves = displace::plan(&folders, b"order.json", Newcomer::Call(id(2))).expect("it can be planned");
        assert_eq!(moves.len(), 2);
        displace::run(&folders, &moves[..steps]).expect("it can be done");
        bench.restart();
        bench.filing.make_way(&[(b"order.json", id(2))]).expect("there is room");
        let aside = [format!("requests/order.{}.json", id(1)), format!("responses/order.{}.json", id(1))];
        assert_eq!(bench.names(), aside, "after {steps} steps");
    }
}

#[test]
fn a_crash_at_any_step_of_moving_a_rejected_pair_keeps_it_together() {
    for steps in 0..=3 {
        let mut bench = Bench::new();
        let file = bench.drop_in(b"order.json", "not a call");
        bench.reject(&file);
        let folders = Folders::open(bench.dir.path()).expect("it can be opened");
        let moves = displace::plan(&folders, b"order.json", Newcomer::Rejected).expect("it can be planned");
        displace::run(&folders, &moves[..steps]).expect("it can be done");
        bench.restart();
        let again = bench.drop_in(b"order.json", "not a call either");
        bench.reject(&again);
        let aside: Vec<String> = bench.names().into_iter().filter(|name| name.contains("rejected-")).collect();
        assert_eq!(aside.len(), 3, "after {steps} steps: {aside:?}");
        let stem = aside[0].trim_start_matches("rejected/").trim_end_matches(".json");
        assert_eq!(aside[1], format!("rejected/{stem}.json.problem.json"));
        assert_eq!(aside[2], format!("responses/{stem}.json"));
        assert_eq!(bench.names().len(), 6);
    }
}

#[test]
fn a_crash_at_any_step_of_rejecting_leaves_one_of_each() {
    for earlier in [false, true] {
        for steps in 0..=4 {
            let mut bench = Bench::new();
            if earlier {
                let first = bench.drop_in(b"order.json", "not a call");
                bench.reject(&first);
            }
            let file = bench.drop_in(b"order.json", "not a call");
            let rejection = rejection();
            let files = [Rejected { file: &file, rejection: &rejection }];
            let folders = Folders::open(bench.dir.path()).expect("it can be opened");
            let mut batch = rejected::Batch::new(&bench.filing, &folders, &files);
            for step in 0..steps {
                match step {
                    0 => batch.write(),
                    1 => batch.place_responses(),
                    2 => batch.place_problems(),
                    _ => batch.move_files(&bench.filing),
                }
            }
            bench.restart();
            let outcome = bench.reject(&file);
            assert_eq!(outcome == RejectedOutcome::Filed, steps < 4, "moved already after 4 steps");
            assert_eq!(bench.names().len(), if earlier { 6 } else { 3 }, "after {steps} steps: {:?}", bench.names());
            assert!(!bench.names().iter().any(|name| name.contains("tmp")));
        }
    }
}

#[test]
fn a_file_that_changed_meanwhile_is_not_rejected() {
    let bench = Bench::new();
    let file = bench.drop_in(b"order.json", "not a call");
    let other = FileIdentity { changed_ns: file.changed_ns - 1, ..file.clone() };
    assert_eq!(bench.reject(&other), RejectedOutcome::Changed);
    assert_eq!(bench.names(), ["/order.json"]);
    fs::remove_file(bench.dir.path().join("order.json")).expect("it is there");
    assert_eq!(bench.reject(&file), RejectedOutcome::Changed);
    assert!(bench.names().is_empty());
}

#[test]
fn rejected_files_whose_names_meet_are_both_kept() {
    let bench = Bench::new();
    for name in [&b"order.json"[..], b"order.json.problem.json", b"order.json"] {
        let file = bench.drop_in(name, &format!("contents of {}", name.escape_ascii()));
        assert_eq!(bench.reject(&file), RejectedOutcome::Filed);
    }
    let contents: Vec<String> = bench.tree().into_values().collect();
    let count = |text: &str| contents.iter().filter(|contents| *contents == text).count();
    assert_eq!(count("contents of order.json"), 2);
    assert_eq!(count("contents of order.json.problem.json"), 1);
    assert_eq!(contents.len(), 9);
}

#[test]
fn an_unusable_folder_is_an_error_and_trying_again_helps() {
    let bench = Bench::new();
    let blocked = bench.dir.path().join("requests");
    fs::write(&blocked, "in the way").expect("it can be written");
    let call = ended(1, b"order.json");
    let error = bench.filing.file(std::slice::from_ref(&call)).pop().expect("one result").expect_err("it is no folder");
    assert_eq!((error.folder, error.source), ("requests", Errno::NOTDIR));
    let file = bench.drop_in(b"bad.json", "not a call");
    let rejection = rejection();
    assert!(bench.filing.reject(&[Rejected { file: &file, rejection: &rejection }])[0].is_err());
    fs::remove_file(blocked).expect("it is there");
    bench.file(&call);
    assert_eq!(bench.reject(&file), RejectedOutcome::Filed);
    assert_eq!(bench.names().len(), 5);
}

#[test]
fn sweeping_spares_files_of_this_run_and_of_others() {
    let bench = Bench::new();
    let folders = Folders::open(bench.dir.path()).expect("it can be opened");
    let own = bench.filing.temporary();
    folders.write(Folder::Responses, &own, b"").expect("it can be written");
    for leftover in [&b".0-7.farcall.tmp"[..], b".keep", b"order.json"] {
        folders.write(Folder::Responses, leftover, b"").expect("it can be written");
    }
    bench.filing.sweep(1, || true).expect("leftovers can be removed");
    let mut left =
        [format!("responses/{}", own.escape_ascii()), "responses/.keep".to_owned(), "responses/order.json".to_owned()];
    left.sort();
    assert_eq!(bench.names(), left);
}
