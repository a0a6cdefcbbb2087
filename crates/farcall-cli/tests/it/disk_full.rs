//! Disks without space: nothing that was acknowledged is lost, what cannot be kept is refused, and all goes on by
//! itself when there is space again.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::checker::{assert_kept, drain};
use crate::rig::program::{Program, get, post_call};
use crate::rig::recorder::{Recorder, Reply};
use crate::rig::volume::{Cover, Volume, can_use};
use crate::rig::world::{Told, World};
use crate::rig::{drop_file, pause, rounds, until};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Space is there again: how long may it take until calls are taken again? Five seconds, on a machine with time.
const RESUMES_WITHIN: Duration = Duration::from_secs(20);

/// Writes until nothing more fits, or until this much is left.
fn fill(path: &Path, leave_bytes: u64) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    let folder = path.parent().expect("a file lies in a folder");
    let mut chunk = 256 * 1024;
    while chunk > 0 {
        let free = rustix::fs::statvfs(folder)?;
        let free = free.f_bavail * free.f_frsize;
        let wanted = usize::try_from(free.saturating_sub(leave_bytes)).unwrap_or(chunk).min(chunk);
        if wanted == 0 || file.write_all(&vec![1; wanted]).is_err() {
            chunk /= 2;
        }
    }
    Ok(())
}

fn accepts(world: &World) -> bool {
    matches!(world.submit(world.next_number()), Told::Accepted(_))
}

fn resumes(world: &World) {
    let begun = Instant::now();
    until("calls are taken again", || accepts(world).then_some(()));
    assert!(begun.elapsed() < RESUMES_WITHIN, "it took {:?}", begun.elapsed());
}

fn end(world: &World, program: Program) -> Outcome {
    drain(world, &program);
    let findings = assert_kept(world);
    assert!(findings.accepted > 0, "{findings:?}");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn below_min_free_calls_are_refused_files_stay_and_accepted_calls_end() -> Outcome {
    // So much more than is left when it is filled that no log that is cut meanwhile makes up for it.
    let Some(volume) = Volume::tmpfs(64 << 10)? else { return Ok(()) };
    let world = World::within(&volume.dir())?;
    world.reconfigure("min_free: 0", "min_free: 32MiB")?;
    let program = world.launch().serve()?;
    world.load_for(Duration::from_millis(200));
    let filler = volume.dir().join("filler");
    fill(&filler, 6 << 20)?;
    until("refusals", || (world.submit(world.next_number()) == Told::Refused(507)).then_some(()));
    assert_eq!(program.health()?["status"], "degraded");
    let late = world.next_number() * 45 + 1;
    world.drop_file(late);
    until("accepted calls end", || {
        let calls = &program.health().ok()?["calls"];
        let live = |state: &str| calls[state].as_u64().unwrap_or(1);
        (live("queued") + live("running") + live("retrying") == 0).then_some(())
    });
    let waiting = volume.dir().join(format!("{late}.json"));
    assert!(waiting.exists(), "a file stays in the inbox as long as its call is refused");
    std::fs::remove_file(filler)?;
    resumes(&world);
    let begun = Instant::now();
    until("the file is taken", || (!waiting.exists()).then_some(()));
    assert!(begun.elapsed() < RESUMES_WITHIN, "it took {:?}", begun.elapsed());
    end(&world, program)
}

#[test]
fn a_disk_full_to_the_last_byte_refuses_and_goes_on_when_there_is_space() -> Outcome {
    fill_up_and_free(48 << 10)
}

/// The store's own log may fill it before anything else does.
#[test]
fn a_small_disk_full_to_the_last_byte_refuses_and_goes_on_when_there_is_space() -> Outcome {
    for _ in 0..rounds(3) {
        fill_up_and_free(8 << 10)?;
    }
    Ok(())
}

fn fill_up_and_free(kib: u32) -> Outcome {
    let Some(volume) = Volume::tmpfs(kib)? else { return Ok(()) };
    let world = World::within(&volume.dir())?;
    let program = world.launch().serve()?;
    let filler = volume.dir().join("filler");
    let refused = || world.told.lock().expect("not poisoned").values().any(|told| matches!(told, Told::Refused(507)));
    world.load_for(Duration::from_millis(300));
    assert!(kib < 48 << 10 || !refused(), "the volume is large enough for what comes before it is filled");
    fill(&filler, 0)?;
    world.load_for(Duration::from_secs(2));
    assert!(refused(), "a call that cannot be kept is refused with 507");
    std::fs::remove_file(filler)?;
    resumes(&world);
    end(&world, program)
}

#[test]
fn an_outcome_that_finds_the_disk_full_is_kept_and_its_call_is_not_sent_again() -> Outcome {
    let Some(volume) = Volume::tmpfs(8 << 10)? else { return Ok(()) };
    let is_full = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&is_full);
    let upstream = Recorder::start(move |_, _| {
        until("the disk is full", || waits.load(Ordering::Relaxed).then_some(()));
        Reply::new(200)
    })?;
    let config = format!("store: {{ min_free: 0 }}\nupstreams:\n  api: {{ base_url: \"{}\" }}\n", upstream.url());
    std::fs::write(volume.dir().join("farcall.yml"), config)?;
    let program = Program::serve(&volume.dir())?;
    let call = json!({ "upstream": "api", "end_point": "/x", "body": { "filler": "x".repeat(40_000) } });
    let id = post_call(&volume.dir(), &call)?.body["id"].as_str().expect("an accepted call has an id").to_owned();
    until("it is sent", || (upstream.arrivals().len() == 1).then_some(()));
    let filler = volume.dir().join("filler");
    fill(&filler, 0)?;
    is_full.store(true, Ordering::Relaxed);
    pause(Duration::from_secs(2));
    assert_eq!(upstream.arrivals().len(), 1, "nothing is sent while nothing can be stored");
    std::fs::remove_file(filler)?;
    until("its end", || {
        let call = get(&volume.dir(), &format!("/v1/calls/{id}")).ok()?;
        (call.body["state"] == "succeeded").then_some(())
    });
    assert_eq!(upstream.arrivals().len(), 1, "it was not sent again");
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

#[test]
fn responses_that_find_no_space_are_put_in_place_later_with_one_warning() -> Outcome {
    let world = World::new()?;
    let responses = world.dir().join("responses");
    std::fs::create_dir(&responses)?;
    let Some(cover) = Cover::tmpfs(64, &responses)? else { return Ok(()) };
    let program = world.launch().serve()?;
    world.load_for(Duration::from_millis(500));
    until("the folder is full", || program.log().contains("trying again").then_some(()));
    pause(Duration::from_secs(2));
    let warnings = program.log().matches("cannot put response files in place").count();
    assert_eq!(warnings, 1, "one warning: {}", program.log());
    assert!(accepts(&world), "calls are taken all the same");
    cover.resize(32 << 10)?;
    end(&world, program)?;
    Ok(())
}

#[test]
fn folders_on_other_file_systems_are_filed_into_all_the_same() -> Outcome {
    for folder in ["responses", "requests", "rejected"] {
        let world = World::new()?;
        std::fs::create_dir(world.dir().join(folder))?;
        let Some(_cover) = Cover::tmpfs(32 << 10, &world.dir().join(folder))? else { return Ok(()) };
        let program = world.launch().serve()?;
        world.load_for(Duration::from_millis(300));
        world.kill(program)?;
        let program = world.launch().serve()?;
        world.load_for(Duration::from_millis(100));
        end(&world, program)?;
    }
    Ok(())
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_not_the_end_of_the_process() -> Outcome {
    if !can_use(&["prlimit"]) {
        return Ok(());
    }
    let world = World::new()?;
    let mut program = world.launch().wrapped(["prlimit", "--fsize=600000"]).serve()?;
    world.load_for(Duration::from_secs(2));
    if let Some(status) = program.ended()? {
        assert_eq!(status.code(), Some(7), "it ended by {status}: {}", program.log());
    }
    world.kill(program)?;
    end(&world, world.launch().serve()?)
}

#[test]
fn a_limit_of_256_descriptors_is_lived_with() -> Outcome {
    if !can_use(&["prlimit"]) {
        return Ok(());
    }
    let world = World::new()?;
    let program = world.launch().wrapped(["prlimit", "--nofile=256"]).serve()?;
    let socket = world.dir().join(".farcall/farcall.sock");
    let idle: Vec<_> = (0..400).map_while(|_| std::os::unix::net::UnixStream::connect(&socket).ok()).collect();
    assert!(idle.len() > 200, "only {} connections", idle.len());
    drop_file(world.dir(), "among.json", r#"{"upstream": "api", "end_point": "/call", "body": {"n": 0}}"#)?;
    until("a call is made meanwhile", || (!world.upstream.arrivals().is_empty()).then_some(()));
    drop(idle);
    resumes(&world);
    assert_eq!(program.terminate()?.code(), Some(0));
    Ok(())
}

/// No disk has that much space: files are refused as on one that is full.
#[test]
fn a_run_that_has_only_files_without_space_left_names_them_and_ends() -> Outcome {
    let dir = tempfile::tempdir()?;
    let config = "store: { min_free: 1024TiB }\nupstreams:\n  api: { base_url: \"http://127.0.0.1:9\" }\n";
    std::fs::write(dir.path().join("farcall.yml"), config)?;
    for name in ["one.json", "two.json"] {
        drop_file(dir.path(), name, r#"{"upstream": "api", "end_point": "/x", "method": "PUT"}"#)?;
    }
    let begun = Instant::now();
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_farcall")).arg("run").arg(dir.path()).output()?;
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(7), "{said}");
    for words in ["waiting for space", "2 files not taken", "store.min_free", "  one.json", "  two.json"] {
        assert_eq!(said.matches(words).count(), 1, "{words:?} in {said}");
    }
    assert!(begun.elapsed() >= Duration::from_secs(10), "space may come");
    assert!(dir.path().join("one.json").exists() && dir.path().join("two.json").exists());
    Ok(())
}
