//! Files taken, kept, and moved to their place.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use farcall_core::time::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::result_file::Ended;

const NAME: &str = "a.json";

struct Bench {
    dir: TempDir,
    inbox: File,
    filing: Filing,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let inbox = File::open(dir.path()).expect("it can be opened");
        let filing = Filing::new(dir.path(), 1);
        Self { dir, inbox, filing }
    }

    fn drop_in(&self, contents: &str) -> Taken {
        let path = self.dir.path().join(NAME);
        fs::write(&path, contents).expect("it can be written");
        let meta = fs::metadata(&path).expect("it is there");
        let changed_ns = meta.ctime() * 1_000_000_000 + meta.ctime_nsec();
        let file = FileIdentity { name: NAME.into(), device: meta.dev(), inode: meta.ino(), changed_ns };
        Taken { file, bytes: Bytes::copy_from_slice(contents.as_bytes()), id: id() }
    }

    /// As the engine does: the name is claimed before its file is cleared away.
    fn clear(&self, taken: &Taken) -> Cleared {
        self.filing.claim(NAME.as_bytes(), taken.id);
        self.filing.clear(self.inbox.as_fd(), std::slice::from_ref(taken))[0]
    }

    fn file(&self, taken: &Taken) -> fs::Metadata {
        let response = format!("{{\"id\":\"{}\"}}", id()).into_bytes();
        let (file, request) = (taken.file.clone(), taken.bytes.clone());
        let ended = Ended { id: id(), file, response, request: request.clone(), is_again: false };
        self.filing.file(&[ended])[0].as_ref().expect("it can be filed");
        assert_eq!(fs::read(self.path("requests")).expect("it is there"), request);
        fs::metadata(self.path("requests")).expect("it is there")
    }

    fn path(&self, folder: &str) -> std::path::PathBuf {
        self.dir.path().join(folder).join(NAME)
    }

    fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join(".farcall/taken")).expect("the folder is there");
        entries.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned()).collect()
    }
}

fn id() -> CallId {
    CallId::new(Timestamp::from_micros(1_795_165_200_000_000), 5)
}

#[test]
fn a_taken_file_moves_to_requests_as_it_is() {
    let bench = Bench::new();
    let taken = bench.drop_in("a call");
    assert_eq!(bench.clear(&taken), Cleared::Gone);
    assert!(!bench.path("").exists());
    assert_eq!(bench.kept(), [id().to_string()]);
    let private = fs::metadata(bench.dir.path().join(".farcall")).expect("it is there");
    assert_eq!(private.permissions().mode() & 0o777, 0o700);
    assert_eq!(bench.file(&taken).ino(), taken.file.inode, "the very file");
    assert!(bench.kept().is_empty());
}

#[test]
fn the_store_is_the_truth_when_a_kept_file_was_changed() {
    let bench = Bench::new();
    let taken = bench.drop_in("a call");
    bench.clear(&taken);
    fs::write(bench.dir.path().join(".farcall/taken").join(id().to_string()), "forged").expect("it can be written");
    assert_ne!(bench.file(&taken).ino(), taken.file.inode);
    assert!(bench.kept().is_empty());
}

#[test]
fn a_file_with_other_names_or_filed_already_is_only_removed() {
    let bench = Bench::new();
    let taken = bench.drop_in("a call");
    fs::hard_link(bench.path(""), bench.dir.path().join("elsewhere")).expect("it can be linked");
    assert_eq!(bench.clear(&taken), Cleared::Gone);
    assert_ne!(bench.file(&taken).ino(), taken.file.inode, "it may be changed under its other name");
    assert!(bench.kept().is_empty());
    // The engine was faster than the inbox: filed before the file is cleared away.
    let late = bench.drop_in("a call");
    assert_eq!(bench.filing.clear(bench.inbox.as_fd(), &[late]), [Cleared::Gone]);
    assert!(!bench.path("").exists() && bench.kept().is_empty());
}

#[test]
fn only_the_file_that_was_read_is_removed() {
    let bench = Bench::new();
    let taken = bench.drop_in("one");
    File::options()
        .write(true)
        .open(bench.path(""))
        .and_then(|file| file.set_modified(std::time::UNIX_EPOCH))
        .expect("it can be set");
    assert_eq!(bench.clear(&taken), Cleared::Gone, "its times are no content");
    assert_eq!(bench.clear(&taken), Cleared::Gone, "and gone is gone");

    let taken = bench.drop_in("one");
    fs::write(bench.path(""), "two").expect("it can be written");
    assert_eq!(bench.clear(&taken), Cleared::Changed, "rewritten");

    let taken = bench.drop_in("one");
    fs::write(bench.dir.path().join("other"), "one").expect("it can be written");
    fs::rename(bench.dir.path().join("other"), bench.path("")).expect("it can be renamed");
    assert_eq!(bench.clear(&taken), Cleared::Changed, "another file, if of the same contents");
    assert!(bench.path("").exists());
}

#[test]
fn a_file_that_takes_the_name_in_the_last_moment_is_put_back() {
    let bench = Bench::new();
    let taken = bench.drop_in("one");
    let kept = Kept::open(bench.dir.path()).expect("it can be made");
    let take = |temporary: &[u8]| {
        let inode = (taken.file.device, taken.file.inode);
        kept.take((bench.inbox.as_fd(), NAME.as_bytes()), inode, Some(id()), temporary.to_vec())
    };
    // As if it came between the look at the file and the move.
    fs::write(bench.dir.path().join("other"), "two").expect("it can be written");
    fs::rename(bench.dir.path().join("other"), bench.path("")).expect("it can be renamed");
    assert_eq!(take(b"t1"), Cleared::Changed);
    assert_eq!(fs::read_to_string(bench.path("")).expect("it is there again"), "two");
    assert!(bench.kept().is_empty());
    fs::write(bench.dir.path().join(".farcall/taken").join(id().to_string()), "").expect("it can be written");
    assert_eq!(take(b"t2"), Cleared::Changed, "also when the call has a file already");
    assert_eq!(bench.kept(), [id().to_string()]);
}

#[test]
fn a_call_that_is_filed_takes_its_file_away_whatever_number_the_disk_has_now() {
    let bench = Bench::new();
    let mut taken = bench.drop_in("1");
    taken.file.device += 1;
    bench.filing.claim(NAME.as_bytes(), taken.id);
    bench.file(&taken);
    assert!(!bench.dir.path().join(NAME).exists(), "it would be a new call");
}
