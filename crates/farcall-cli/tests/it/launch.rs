//! Programs run by the engine's spawner through the real launcher.
//!
//! Each test says what a program finds when it starts, how its end is reported, or what becomes of it when it is
//! stopped or its engine dies. Programs report through files in a directory of the test's own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use farcall_core::call::State;
use farcall_core::id::CallId;
use farcall_core::time::Timestamp;
use farcall_engine::callback::{CallbackValues, environment, expand};
use farcall_engine::execute::process::{Command, Exit, ProcessReport, Spawner, Tail};
use nix::sys::signal::{SigSet, Signal};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const FARCALL: &str = env!("CARGO_BIN_EXE_farcall");
/// Far longer than anything here takes; only a defect reaches it.
const PATIENCE: Duration = Duration::from_secs(20);

type Outcome = anyhow::Result<()>;

struct Place {
    dir: TempDir,
    spawner: Spawner,
}

impl Place {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { dir: tempfile::tempdir()?, spawner: Spawner::new(FARCALL.into())? })
    }

    fn command(&self, words: &[&str]) -> Command {
        Command {
            words: words.iter().map(OsString::from).collect(),
            dir: self.dir.path().to_owned(),
            env: Vec::new(),
            grace: PATIENCE,
            withheld: Default::default(),
        }
    }

    async fn run(&self, command: Command) -> anyhow::Result<ProcessReport> {
        Ok(tokio::time::timeout(PATIENCE, self.spawner.run(command, CancellationToken::new())).await?)
    }

    async fn sh(&self, script: &str) -> anyhow::Result<ProcessReport> {
        self.run(self.command(&["sh", "-c", script])).await
    }

    /// The text of a file that a program writes, once it holds a whole line.
    async fn line(&self, name: &str) -> anyhow::Result<String> {
        eventually(|| {
            fs::read_to_string(self.dir.path().join(name))
                .ok()
                .filter(|text| text.ends_with('\n'))
                .map(|text| text.trim().to_owned())
        })
        .await
    }
}

async fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return Ok(value);
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "it never came about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Gone, or a zombie that nobody has reaped yet.
fn has_ended(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with(['Z', 'X']))
}

fn text(tail: &Tail) -> String {
    tail.to_trimmed_text()
}

#[tokio::test]
async fn words_arrive_byte_for_byte() -> Outcome {
    let place = Place::new()?;
    let name = OsString::from_vec(b"-$(touch x);'\"`id` \xff\n*.json".to_vec());
    let values = CallbackValues {
        file: Some(name.clone()),
        ended_at: Timestamp::from_micros(1_614_465_367_000_000),
        id: CallId::from_bits(7),
        status: None,
        state: State::Failed,
        response: Some(place.dir.path().join("responses/r.json")),
    };
    let record = "printf '%s\\0' \"$@\" > argv; printf '%s\\0' \"$FARCALL_FILE\" \"$FARCALL_STATE\" > env";
    let words = ["sh", "-c", record, "sh", "$file", "id=$file&at=$datetime", "$status", "$HOME", "--", "a  b"];
    let words = expand(&words.map(str::to_owned), &values);
    let report = place.run(Command { words, env: environment(&values), ..place.command(&[]) }).await?;

    assert_eq!(report.exit, Exit::Exited(0), "{}", text(&report.stderr));
    let guarded = [b"./".as_slice(), name.as_bytes()].concat();
    let joined = [b"id=".as_slice(), name.as_bytes(), b"&at=2021-02-27T22:36:07Z"].concat();
    let argv = fs::read(place.dir.path().join("argv"))?;
    let expected = [guarded.as_slice(), &joined, b"", b"$HOME", b"--", b"a  b", b""].join(&0);
    assert_eq!(argv.escape_ascii().to_string(), expected.escape_ascii().to_string());
    let env = fs::read(place.dir.path().join("env"))?;
    assert_eq!(env, [name.as_bytes(), b"failed", b""].join(&0));
    let mut files: Vec<_> =
        fs::read_dir(place.dir.path())?.map(|entry| Ok(entry?.file_name())).collect::<anyhow::Result<_>>()?;
    files.sort();
    assert_eq!(files, ["argv", "env"], "nothing was injected");
    Ok(())
}

#[tokio::test]
async fn a_program_leads_a_session_of_its_own() -> Outcome {
    let place = Place::new()?;
    let report = place.sh("read -r stat < /proc/$$/stat; echo \"$$ $stat\"").await?;
    let out = text(&report.stdout);
    let fields: Vec<&str> = out.split(' ').collect();
    let (pid, group, session) = (fields[0], fields[5], fields[6]);
    assert_eq!((group, session), (pid, pid), "{out}");
    Ok(())
}

#[tokio::test]
async fn a_program_holds_three_descriptors_and_an_empty_stdin() -> Outcome {
    let place = Place::new()?;
    // One that is inherited on purpose: without the launcher the program would find it.
    let leaked = fs::File::open("/dev/zero")?;
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty())?;
    let report = place.sh("ls /proc/$$/fd; wc -c").await?;
    assert_eq!(text(&report.stdout).split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "0"]);
    Ok(())
}

#[tokio::test]
async fn a_program_inherits_the_environment_and_leaves_no_core() -> Outcome {
    let place = Place::new()?;
    let command = place.command(&["sh", "-c", "test \"$PATH\" = \"$1\" && echo $EXTRA $(ulimit -Hc)", "sh"]);
    let mut words = command.words.clone();
    words.push(std::env::var_os("PATH").unwrap_or_default());
    let report = place.run(Command { words, env: vec![("EXTRA".into(), "more".into())], ..command }).await?;
    assert_eq!(text(&report.stdout), "more 0", "{}", text(&report.stderr));
    Ok(())
}

#[test]
fn a_program_starts_with_no_signal_blocked() -> Outcome {
    // The spawner's thread inherits the mask of the one that makes it.
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTERM);
    blocked.thread_block()?;
    let place = Place::new()?;
    blocked.thread_unblock()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(place.run(place.command(&["grep", "SigBlk", "/proc/self/status"])))?;
    assert_eq!(text(&report.stdout).split_whitespace().last(), Some("0000000000000000"));
    Ok(())
}

#[tokio::test]
async fn the_end_is_told_as_it_was() -> Outcome {
    let place = Place::new()?;
    for (script, expected) in
        [("exit 0", Exit::Exited(0)), ("exit 3", Exit::Exited(3)), ("kill -9 $$", Exit::Signalled(9))]
    {
        assert_eq!(place.sh(script).await?.exit, expected, "{script}");
    }
    let report = place.sh("echo out; echo err >&2; exit 127").await?;
    assert_eq!((report.exit, report.aborted), (Exit::Exited(127), false), "its own 127 is not ours");
    assert_eq!((report.stdout.as_bytes(), report.stderr.as_bytes()), (&b"out\n"[..], &b"err\n"[..]));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_started_says_why() -> Outcome {
    let place = Place::new()?;
    let mut nowhere = place.command(&["true"]);
    nowhere.dir = place.dir.path().join("missing");
    fs::write(place.dir.path().join("plain"), "text")?;
    let gone = Spawner::new(place.dir.path().join("no-launcher"))?;
    let reasons = [
        (place.run(place.command(&["no-such-program-here"])).await?, "cannot start no-such-program-here: No such file"),
        (place.run(place.command(&["./plain"])).await?, "cannot start ./plain: Permission denied"),
        (place.run(nowhere).await?, "cannot start true: cannot enter "),
        (place.run(place.command(&[])).await?, "cannot run the launcher: "),
        (gone.run(place.command(&["true"]), CancellationToken::new()).await, "cannot run the launcher: No such file"),
    ];
    for (report, expected) in reasons {
        let Exit::SpawnFailed(reason) = &report.exit else { anyhow::bail!("{expected}: {report:?}") };
        assert!(reason.starts_with(expected), "{reason}");
    }
    Ok(())
}

#[tokio::test]
async fn a_descendant_that_keeps_the_output_open_holds_nobody_up() -> Outcome {
    let place = Place::new()?;
    let begun = Instant::now();
    let report = place.sh("sleep 1000 & echo $! > pid; echo done").await?;
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
    assert_eq!((report.exit, text(&report.stdout).as_str()), (Exit::Exited(0), "done"));
    let pid = place.line("pid").await?;
    assert!(!has_ended(&pid), "what a program leaves behind on purpose is left alone");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse()?), Signal::SIGKILL)?;
    Ok(())
}

#[tokio::test]
async fn of_much_output_the_end_is_kept() -> Outcome {
    let place = Place::new()?;
    let report = place.sh("head -c 20000000 /dev/zero; echo the end").await?;
    assert_eq!((report.stdout.total(), report.stdout.as_bytes().len()), (20_000_008, Tail::BYTES_MAX));
    assert!(report.stdout.as_bytes().ends_with(b"\0the end\n"));
    Ok(())
}

#[tokio::test]
async fn an_abort_asks_first() -> Outcome {
    let place = Place::new()?;
    let abort = CancellationToken::new();
    let command = place.command(&["sh", "-c", "trap 'echo bye; exit 4' TERM; echo > up; while :; do sleep 0.01; done"]);
    let (report, ()) = tokio::join!(place.spawner.run(command, abort.clone()), async {
        if place.line("up").await.is_ok() {
            abort.cancel();
        }
    });
    assert_eq!((report.exit, report.aborted), (Exit::Exited(4), true));
    assert_eq!(text(&report.stdout), "bye");
    Ok(())
}

#[tokio::test]
async fn an_abort_ends_the_whole_group_of_a_program_that_will_not_listen() -> Outcome {
    let place = Place::new()?;
    let abort = CancellationToken::new();
    let script = "trap '' TERM; sleep 1000 & echo $! > child; wait; wait; sleep 1000";
    let command = Command { grace: Duration::from_millis(50), ..place.command(&["sh", "-c", script]) };
    let (report, child) = tokio::join!(place.spawner.run(command, abort.clone()), async {
        let child = place.line("child").await;
        abort.cancel();
        child
    });
    assert_eq!((report.exit, report.aborted), (Exit::Signalled(9), true));
    let child = child?;
    eventually(|| has_ended(&child).then_some(())).await
}

#[tokio::test]
async fn a_descendant_does_not_outlive_an_aborted_program() -> Outcome {
    let place = Place::new()?;
    let abort = CancellationToken::new();
    // The program ends at once when asked, its descendant ignores the question.
    let script = "(trap '' TERM; exec sleep 1000) & echo $! > child; wait";
    let command = place.command(&["sh", "-c", script]);
    let (report, child) = tokio::join!(place.spawner.run(command, abort.clone()), async {
        let child = place.line("child").await;
        abort.cancel();
        child
    });
    assert_eq!((report.exit, report.aborted), (Exit::Signalled(15), true));
    let child = child?;
    eventually(|| has_ended(&child).then_some(())).await
}

#[tokio::test]
async fn nothing_starts_once_aborted() -> Outcome {
    let place = Place::new()?;
    let abort = CancellationToken::new();
    abort.cancel();
    let report = place.spawner.run(place.command(&["touch", "marker"]), abort).await;
    assert!(report.aborted && matches!(report.exit, Exit::SpawnFailed(_)), "{report:?}");
    assert!(!place.dir.path().join("marker").exists());
    Ok(())
}

#[tokio::test]
async fn dropping_the_future_ends_the_program() -> Outcome {
    let place = Place::new()?;
    let command = place.command(&["sh", "-c", "echo $$ > pid; exec sleep 1000"]);
    let run = place.spawner.run(command, CancellationToken::new());
    let pid = tokio::select! {
        report = run => anyhow::bail!("it ended: {report:?}"),
        pid = place.line("pid") => pid?,
    };
    eventually(|| has_ended(&pid).then_some(())).await
}

#[tokio::test]
async fn joining_waits_for_the_last_program() -> Outcome {
    let Place { dir, spawner } = Place::new()?;
    let command = Command {
        words: ["sh", "-c", "trap 'echo > ended; exit' TERM; echo > up; while :; do sleep 0.01; done"]
            .map(OsString::from)
            .into(),
        dir: dir.path().to_owned(),
        env: Vec::new(),
        grace: PATIENCE,
        withheld: Default::default(),
    };
    {
        let run = spawner.run(command, CancellationToken::new());
        tokio::select! {
            report = run => anyhow::bail!("it ended: {report:?}"),
            () = async { while !dir.path().join("up").exists() { tokio::task::yield_now().await } } => {}
        }
    }
    tokio::task::spawn_blocking(move || spawner.join()).await?;
    assert!(dir.path().join("ended").exists());
    Ok(())
}

#[tokio::test]
async fn a_program_dies_with_its_engine() -> Outcome {
    let dir = tempfile::tempdir()?;
    // A shell stands in for the engine: it launches, and is killed without any chance to clean up.
    let script = "\"$0\" __launch --parent $$ -- sh -c 'echo $$ > pid; exec sleep 1000' & wait";
    let mut engine = std::process::Command::new("sh")
        .args([OsStr::new("-c"), OsStr::new(script), OsStr::new(FARCALL)])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .spawn()?;
    let pid = eventually(|| fs::read_to_string(dir.path().join("pid")).ok().filter(|text| text.ends_with('\n'))).await;
    engine.kill()?;
    engine.wait()?;
    let pid = pid?;
    eventually(|| has_ended(pid.trim()).then_some(())).await
}

#[test]
fn an_orphaned_launcher_starts_nothing() -> Outcome {
    let dir = tempfile::tempdir()?;
    let output = std::process::Command::new(FARCALL)
        .args(["__launch", "--parent", "1", "--", "touch", "marker"])
        .current_dir(dir.path())
        .output()?;
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(String::from_utf8(output.stderr)?, "farcall: cannot start touch: the engine that wanted it has ended\n");
    assert!(!dir.path().join("marker").exists());
    Ok(())
}

#[test]
fn a_launcher_called_wrongly_shows_its_usage() -> Outcome {
    let output = std::process::Command::new(FARCALL).args(["__launch", "true"]).output()?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr)?.starts_with("usage: farcall __launch "));
    Ok(())
}
