//! Files of every sort, looked at.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;

struct Bench {
    dir: tempfile::TempDir,
    folder: File,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let folder = File::open(dir.path()).expect("it can be opened");
        Self { dir, folder }
    }

    fn look(&self, name: &str) -> Look {
        look(self.folder.as_fd(), name.as_bytes(), 10)
    }

    fn odd(&self, name: &str) -> Option<Oddity> {
        match self.look(name) {
            Look::Odd(oddity) => Some(oddity),
            _ => None,
        }
    }
}

#[test]
fn a_regular_file_is_read_up_to_its_limit() {
    let bench = Bench::new();
    fs::write(bench.dir.path().join("a.json"), "0123456789").expect("it can be written");
    fs::write(bench.dir.path().join("b.json"), "0123456789x").expect("it can be written");
    assert!(matches!(bench.look("a.json"), Look::Read(stamp, bytes) if stamp.size == 10 && bytes == "0123456789"));
    assert!(matches!(bench.look("b.json"), Look::TooLarge(stamp) if stamp.size == 11));
    assert!(matches!(bench.look("c.json"), Look::Gone));
}

#[test]
fn nothing_but_regular_files_is_opened() {
    let bench = Bench::new();
    let path = |name: &str| bench.dir.path().join(name);
    fs::write(path("target"), "{}").expect("it can be written");
    symlink("target", path("link.json")).expect("it can be linked");
    symlink("nowhere", path("dangling.json")).expect("it can be linked");
    fs::create_dir(path("folder.json")).expect("it can be made");
    let _listener = UnixListener::bind(path("socket.json")).expect("it can be bound");
    rustix::fs::mkfifoat(&bench.folder, "fifo.json", Mode::RWXU).expect("it can be made");
    assert_eq!(bench.odd("link.json"), Some(Oddity::SymbolicLink));
    assert_eq!(bench.odd("dangling.json"), Some(Oddity::SymbolicLink));
    assert_eq!(bench.odd("folder.json"), Some(Oddity::Folder));
    assert_eq!(bench.odd("socket.json"), Some(Oddity::Special));
    assert_eq!(bench.odd("fifo.json"), Some(Oddity::Special));
}

#[test]
fn only_json_files_that_are_not_hidden_are_call_files() {
    for name in ["a.json", "$(x);'.json", "a b.json", "json.json", "-.json"] {
        assert!(is_call_name(name.as_bytes()), "{name}");
    }
    for name in [".a.json", ".json", "a.json.tmp", "a.json.part", "a.JSON", "a.jsonx", "ajson", "farcall.yml", ""] {
        assert!(!is_call_name(name.as_bytes()), "{name}");
    }
    assert!(is_call_name(b"\xff\n.json"));
}
