//! The inbox on a real directory, with an engine played by the test.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use farcall_core::time::Timestamp;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::config::Config;

const CALL: &str = r#"{"url":"https://api.test/"}"#;
/// Longer than anything here takes; a test that waits as long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    dir: TempDir,
    intake: Intake,
    offers: mpsc::Receiver<Offer>,
    taken: u128,
}

impl Bench {
    /// An inbox in a new directory that was prepared; settling takes no time, so that only writers protect a file.
    fn start(prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        prepare(dir.path());
        let mut config = Config::default();
        config.inbox.settle = Duration::ZERO;
        config.server.max_body = 1_000;
        let settings = Settings {
            dir: dir.path().to_owned(),
            rescan_interval: Duration::from_secs(3_600),
            config: Live::new(Arc::new(config)),
        };
        let (sender, offers) = mpsc::channel(1);
        let filing = Arc::new(Filing::new(dir.path(), 1));
        let intake = Intake::spawn(settings, filing, sender, None).expect("a thread can be started");
        Self { dir, intake, offers, taken: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn offer(&mut self) -> Offer {
        timeout(PATIENCE, self.offers.recv()).await.expect("a file is offered in time").expect("the inbox lives")
    }

    fn id(&mut self) -> CallId {
        self.taken += 1;
        CallId::new(Timestamp::from_micros(1_795_165_200_000_000), self.taken)
    }

    /// Takes the next offer whole; gives the names in it.
    async fn take(&mut self) -> BTreeSet<String> {
        let offer = self.offer().await;
        let verdicts = offer.files.iter().map(|_| Verdict::Taken(self.id())).collect();
        offer.verdicts.send(verdicts).expect("the inbox waits");
        names(&offer.files)
    }

    /// Waits until a full reading that began after this call has ended and what it found is dealt with.
    async fn settled(&self) -> Status {
        let request = self.intake.rescan();
        let mut status = self.intake.status();
        let reached = status.wait_for(|status| status.answered >= request && !status.is_scanning);
        *timeout(PATIENCE, reached).await.expect("in time").expect("the inbox lives")
    }

    async fn wait_for(&self, condition: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.intake.status();
        let reached = timeout(PATIENCE, status.wait_for(condition)).await;
        *reached.expect("in time").expect("the inbox lives")
    }

    fn stop(self) {
        self.intake.stop();
        drop(self.offers);
        self.intake.join();
    }
}

fn names(files: &[Found]) -> BTreeSet<String> {
    files.iter().map(|found| String::from_utf8_lossy(&found.file.name).into_owned()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn drop_in(dir: &Path, name: &str, contents: &str) {
    let hidden = dir.join(format!(".{name}.tmp"));
    fs::write(&hidden, contents).expect("it can be written");
    fs::rename(hidden, dir.join(name)).expect("it can be renamed");
}

#[tokio::test]
async fn files_that_were_there_are_taken_and_leave_the_inbox() {
    let mut bench = Bench::start(|dir| {
        for name in ["a.json", "b.json", "$(touch x);'.json"] {
            fs::write(dir.join(name), CALL).expect("it can be written");
        }
        for name in [".hidden.json", "a.json.tmp", "b.part", "notes.txt"] {
            fs::write(dir.join(name), "{").expect("it can be written");
        }
    });
    assert_eq!(bench.take().await, set(&["a.json", "b.json", "$(touch x);'.json"]));
    let status = bench.settled().await;
    assert_eq!((status.taken, status.rejected, status.is_quiet()), (3, 0, true));
    let left: BTreeSet<String> = fs::read_dir(bench.dir.path())
        .expect("it can be read")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    let expected =
        set(&[".farcall", ".hidden.json", "a.json.tmp", "b.part", "notes.txt", "requests", "responses", "rejected"]);
    assert_eq!(left, expected);
    bench.stop();
}

#[tokio::test]
async fn files_renamed_linked_and_written_into_place_are_noticed() {
    let mut bench = Bench::start(|_| {});
    bench.settled().await;
    drop_in(bench.dir.path(), "renamed.json", CALL);
    assert_eq!(bench.take().await, set(&["renamed.json"]));
    fs::write(bench.path("written.json"), CALL).expect("it can be written");
    assert_eq!(bench.take().await, set(&["written.json"]));
    fs::write(bench.path("source"), CALL).expect("it can be written");
    fs::hard_link(bench.path("source"), bench.path("linked.json")).expect("it can be linked");
    assert_eq!(bench.take().await, set(&["linked.json"]));
    bench.stop();
}

#[tokio::test]
async fn half_a_file_is_neither_taken_nor_rejected() {
    let mut bench = Bench::start(|_| {});
    bench.settled().await;
    let mut file = fs::File::create(bench.path("slow.json")).expect("it can be made");
    for part in ["{\"url\":", "\"https://api.test/\"", "}"] {
        file.write_all(part.as_bytes()).expect("it can be written");
        let status = bench.settled().await;
        assert_eq!((status.rejected, status.waiting, status.is_quiet()), (0, 1, false), "after {part}");
        assert!(bench.offers.try_recv().is_err(), "not even when it would parse");
    }
    drop(file);
    assert_eq!(bench.take().await, set(&["slow.json"]));
    bench.stop();
}

#[tokio::test]
async fn what_is_no_call_is_rejected_with_a_response() {
    let bench = Bench::start(|dir| {
        fs::write(dir.join("bad.json"), "{\n\"a\"}").expect("it can be written");
        fs::write(dir.join("big.json"), " ".repeat(1_001)).expect("it can be written");
        fs::write(dir.join("empty.json"), "").expect("it can be written");
    });
    bench.wait_for(|status| status.rejected == 3).await;
    for name in ["bad.json", "big.json", "empty.json"] {
        assert!(!bench.path(name).exists(), "{name}");
        assert!(bench.path("rejected").join(name).exists(), "{name}");
        assert!(bench.path("rejected").join(format!("{name}.problem.json")).exists(), "{name}");
    }
    let response = fs::read_to_string(bench.path("responses/bad.json")).expect("there is a response");
    assert!(response.contains(r#""line":2,"column":4"#), "{response}");
    let response = fs::read_to_string(bench.path("responses/big.json")).expect("there is a response");
    assert!(response.contains("1001 bytes"), "{response}");
    assert!(bench.settled().await.is_quiet());
    bench.stop();
}

#[tokio::test]
async fn links_folders_and_special_files_are_left_alone() {
    let mut bench = Bench::start(|dir| {
        fs::write(dir.join("elsewhere"), CALL).expect("it can be written");
        symlink("elsewhere", dir.join("link.json")).expect("it can be linked");
        fs::create_dir(dir.join("folder.json")).expect("it can be made");
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("fifo.json"), rustix::fs::Mode::RWXU).expect("it can be made");
    });
    let status = bench.settled().await;
    assert_eq!((status.taken, status.rejected, status.is_quiet()), (0, 0, true));
    assert!(bench.path("fifo.json").exists() && bench.path("link.json").is_symlink());
    fs::remove_file(bench.path("link.json")).expect("it is there");
    drop_in(bench.dir.path(), "link.json", CALL);
    assert_eq!(bench.take().await, set(&["link.json"]), "a file in a link's place is taken");
    bench.stop();
}

#[tokio::test]
async fn each_verdict_has_its_effect() {
    let mut bench = Bench::start(|dir| {
        for name in ["known.json", "taken.json", "wrong.json", "refused.json"] {
            fs::write(dir.join(name), CALL).expect("it can be written");
        }
    });
    let offer = bench.offer().await;
    let rejection = Rejection {
        kind: crate::document::RejectionKind::Invalid,
        message: "the key names another call".to_owned(),
        key: Some("idempotency_key".to_owned()),
        line: None,
        column: None,
    };
    let verdict = |found: &Found| match &*found.file.name {
        b"known.json" => Verdict::Known(CallId::from_bits(1)),
        b"taken.json" => Verdict::Taken(CallId::from_bits(2)),
        b"wrong.json" => Verdict::Rejected(rejection.clone()),
        _ => Verdict::Refused,
    };
    let verdicts = offer.files.iter().map(verdict).collect();
    offer.verdicts.send(verdicts).expect("the inbox waits");
    let again = bench.offer().await;
    assert_eq!(names(&again.files), set(&["refused.json"]));
    drop(again.verdicts);
    let status = bench.wait_for(|status| status.rejected == 1).await;
    assert_eq!((status.taken, status.waiting), (2, 1));
    assert!(bench.path("refused.json").exists() && bench.path("rejected/wrong.json").exists());
    assert!(!bench.path("known.json").exists() && !bench.path("taken.json").exists());
    bench.stop();
}

#[tokio::test]
async fn a_file_replaced_while_the_engine_thinks_is_a_new_one() {
    let mut bench = Bench::start(|dir| fs::write(dir.join("a.json"), CALL).expect("it can be written"));
    let offer = bench.offer().await;
    let second = r#"{"url":"https://api.test/second"}"#;
    drop_in(bench.dir.path(), "a.json", second);
    let id = bench.id();
    offer.verdicts.send(vec![Verdict::Taken(id)]).expect("the inbox waits");
    let files = bench.offer().await.files;
    assert_eq!(files[0].bytes, second);
    bench.stop();
}

#[tokio::test]
async fn a_file_whose_mode_changes_while_the_engine_thinks_is_taken_once() {
    let mut bench = Bench::start(|dir| fs::write(dir.join("a.json"), CALL).expect("it can be written"));
    let offer = bench.offer().await;
    fs::set_permissions(bench.path("a.json"), fs::Permissions::from_mode(0o640)).expect("it can be set");
    let id = bench.id();
    offer.verdicts.send(vec![Verdict::Taken(id)]).expect("the inbox waits");
    assert!(bench.settled().await.is_quiet());
    assert!(!bench.path("a.json").exists());
    assert!(bench.offers.try_recv().is_err());
    bench.stop();
}

#[tokio::test]
async fn ten_thousand_files_come_once_each_in_bounded_batches() {
    let mut bench = Bench::start(|dir| {
        for number in 0..5_000 {
            fs::write(dir.join(format!("before-{number}.json")), CALL).expect("it can be written");
        }
    });
    let dir = bench.dir.path().to_owned();
    let producer = std::thread::spawn(move || {
        for number in 0..5_000 {
            drop_in(&dir, &format!("after-{number}.json"), CALL);
        }
    });
    let mut seen = BTreeSet::new();
    let mut count = 0;
    while count < 10_000 {
        let names = bench.take().await;
        assert!(names.len() <= OFFER_FILES_MAX);
        count += names.len();
        seen.extend(names);
    }
    assert_eq!(seen.len(), 10_000);
    producer.join().expect("the producer ends");
    assert!(bench.settled().await.is_quiet());
    assert!(bench.offers.try_recv().is_err(), "none comes twice");
    bench.stop();
}

#[tokio::test]
async fn the_next_batch_is_offered_before_the_last_is_answered_and_no_file_twice() {
    let files = 3 * OFFER_FILES_MAX;
    let mut bench = Bench::start(|dir| {
        for number in 0..files {
            fs::write(dir.join(format!("{number}.json")), CALL).expect("it can be written");
        }
    });
    let (first, second) = (bench.offer().await, bench.offer().await);
    assert_eq!((first.files.len(), second.files.len()), (OFFER_FILES_MAX, OFFER_FILES_MAX));
    let name = String::from_utf8_lossy(&first.files[0].file.name).into_owned();
    drop_in(bench.dir.path(), &name, r#"{"url":"https://api.test/later"}"#);
    bench.intake.rescan();
    assert!(timeout(Duration::from_millis(50), bench.offers.recv()).await.is_err(), "two are out at most");
    let mut offered: Vec<String> = Vec::new();
    for offer in [first, second] {
        offered.extend(names(&offer.files));
        let verdicts = offer.files.iter().map(|_| Verdict::Taken(bench.id())).collect();
        offer.verdicts.send(verdicts).expect("the inbox waits");
    }
    while offered.len() < files + 1 {
        offered.extend(bench.take().await);
    }
    let again = offered.iter().position(|other| *other == name).expect("it was offered first");
    offered.remove(again);
    assert!(offered.contains(&name), "the file that came in its place is a new one");
    assert_eq!(offered.into_iter().collect::<BTreeSet<_>>().len(), files, "each of the others once");
    assert_eq!(bench.settled().await.taken, files as u64 + 1);
    bench.stop();
}

#[tokio::test]
async fn a_replaced_directory_is_watched_again() {
    let mut bench = Bench::start(|dir| fs::create_dir(dir.join("inbox")).expect("it can be made"));
    let dir = bench.path("inbox");
    let settings = Settings { dir: dir.clone(), rescan_interval: Duration::from_millis(20), config: Live::default() };
    let (sender, offers) = mpsc::channel(1);
    let intake =
        Intake::spawn(settings, Arc::new(Filing::new(&dir, 1)), sender, None).expect("a thread can be started");
    let outer = std::mem::replace(&mut bench.intake, intake);
    let outer_offers = std::mem::replace(&mut bench.offers, offers);
    drop_in(&dir, "a.json", CALL);
    assert_eq!(bench.take().await, set(&["a.json"]));
    bench.settled().await;
    fs::rename(&dir, bench.path("moved")).expect("it can be moved");
    fs::create_dir(&dir).expect("it can be made");
    drop_in(&dir, "b.json", CALL);
    assert_eq!(bench.take().await, set(&["b.json"]));
    bench.settled().await;
    fs::remove_dir_all(&dir).expect("it can be removed");
    fs::create_dir(&dir).expect("it can be made");
    drop_in(&dir, "c.json", CALL);
    assert_eq!(bench.take().await, set(&["c.json"]));
    outer.stop();
    drop(outer_offers);
    outer.join();
    bench.stop();
}

#[tokio::test]
async fn the_thread_ends_when_nobody_takes_offers() {
    let bench = Bench::start(|dir| fs::write(dir.join("a.json"), CALL).expect("it can be written"));
    drop(bench.offers);
    tokio::task::spawn_blocking(|| bench.intake.join()).await.expect("it ends by itself");
    assert!(bench.dir.path().join("a.json").exists(), "and what was not taken stays");
}

#[tokio::test]
async fn a_file_that_waits_for_an_earlier_outcome_holds_up_no_other() {
    let mut bench = Bench::start(|dir| drop_in(dir, "copy.json", CALL));
    let offer = bench.offer().await;
    offer.verdicts.send(vec![Verdict::Awaited]).expect("the inbox waits");
    drop_in(bench.dir.path(), "other.json", CALL);
    assert_eq!(bench.take().await, set(&["other.json"]), "nothing waited for");
    assert_eq!(bench.take().await, set(&["copy.json"]), "and it is offered again");
    bench.stop();
}
