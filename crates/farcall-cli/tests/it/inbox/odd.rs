//! What lies in the inbox and is no plain file: links, devices, folders, files that may not be read, enormous ones.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{Outcome, Place, names, said, times_said};
use crate::rig::confined::{Immutable, has_root, healthy, serve_as_nobody};
use crate::rig::{drop_file, pause, response, until};

#[test]
fn links_pipes_sockets_devices_and_folders_are_left_alone_with_one_warning() -> Outcome {
    let place = Place::new("")?;
    let secret = place.home.path().join("secret");
    fs::write(&secret, place.call(1))?;
    symlink(&secret, place.path("link.json"))?;
    symlink("nowhere", place.path("dangling.json"))?;
    fs::create_dir(place.path("folder.json"))?;
    mknodat(CWD, place.path("pipe.json"), FileType::Fifo, Mode::RWXU, 0)?;
    let _listener = UnixListener::bind(place.path("socket.json"))?;
    let mut odd = vec!["link.json", "dangling.json", "folder.json", "pipe.json", "socket.json"];
    // /dev/zero: whoever read it would read for ever.
    if has_root()
        && mknodat(CWD, place.path("device.json"), FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 5))
            .is_ok()
    {
        odd.push("device.json");
    }
    let running = place.serve()?;
    drop_file(&place.dir(), "good.json", &place.call(2))?;
    assert_eq!(response(&place.dir(), "good.json")["state"], "succeeded", "others flow");
    // Two more readings of the directory.
    pause(Duration::from_secs(11));
    for name in &odd {
        assert_eq!(times_said(&running, name), 1, "{name}: {}", running.stderr());
        assert!(place.path(name).symlink_metadata().is_ok(), "{name} was removed");
    }
    assert_eq!(place.arrivals(), ["/2"], "something was opened through a link");
    Ok(())
}

#[test]
fn a_file_that_may_not_be_read_stays_with_a_warning_until_it_may() -> Outcome {
    let place = Place::new("inbox: {settle: 100ms}\n")?;
    let running = healthy(serve_as_nobody(&place.dir())?, &place.dir());
    let hidden = place.path(".closed");
    fs::write(&hidden, place.call(1))?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o000))?;
    fs::rename(&hidden, place.path("closed.json"))?;
    said(&running, "a call file may not be read; it stays in the inbox");
    pause(Duration::from_secs(6));
    assert!(place.path("closed.json").exists() && place.arrivals().is_empty());
    assert_eq!(times_said(&running, "may not be read"), 1);
    fs::set_permissions(place.path("closed.json"), fs::Permissions::from_mode(0o644))?;
    assert_eq!(response(&place.dir(), "closed.json")["state"], "succeeded");
    Ok(())
}

#[test]
fn a_file_over_max_body_is_rejected_unread() -> Outcome {
    let place = Place::new("server: {max_body: 64KiB}\ninbox: {settle: 100ms}\n")?;
    let running = place.serve()?;
    // Holes take no space; whoever read it would need all of it.
    let file = fs::File::create(place.path(".huge"))?;
    file.set_len(1 << 40)?;
    drop(file);
    let begun = Instant::now();
    fs::rename(place.path(".huge"), place.path("huge.json"))?;
    let rejected = response(&place.dir(), "huge.json");
    assert!(begun.elapsed() < Duration::from_secs(20), "it was read");
    let message = rejected["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("server.max_body"), "{rejected}");
    until("the file in rejected/", || place.path("rejected/huge.json").exists().then_some(()));
    let exact = format!("{}{}", place.call(1), " ".repeat((64 << 10) - place.call(1).len()));
    drop_file(&place.dir(), "exact.json", &exact)?;
    assert_eq!(response(&place.dir(), "exact.json")["state"], "succeeded", "the limit itself passes");
    drop(running);
    Ok(())
}

#[test]
fn hostile_documents_are_rejected_in_little_memory() -> Outcome {
    let place = Place::new("inbox: {settle: 100ms}\n")?;
    let running = place.serve()?;
    let size = 8 << 20;
    let keys = (0..).map(|number| format!("\"{number:x}\":0,")).take(size / 12).collect::<String>();
    let documents = [
        "[".repeat(size),
        r#"{"a":"#.repeat(size / 5),
        format!("{{{keys}\"z\":0}}"),
        format!(r#"{{"url":"{}","body":{{{keys}"z":0,"z":0}}}}"#, place.upstream.url()),
        format!(r#"{{"url":"{}","query":{{{keys}"z":0}}}}"#, place.upstream.url()),
        format!(r#"{{"url":"{}","body":"{}\ud800"}}"#, place.upstream.url(), r"\u00e9".repeat(size / 6 - 20)),
        format!(r#"{{"url":"{}","tags":[{}0]}}"#, place.upstream.url(), "0,".repeat(size / 2 - 50)),
    ];
    for (number, text) in documents.iter().enumerate() {
        drop_file(&place.dir(), format!("{number}.json"), text)?;
    }
    for number in 0..documents.len() {
        assert_eq!(response(&place.dir(), format!("{number}.json"))["state"], "rejected", "{number}");
    }
    until("all to be filed", || names(&place.path("rejected")).ok().filter(|names| names.len() == 2 * documents.len()));
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    assert!(peak_kib < 100 << 10, "{peak_kib} KiB");
    Ok(())
}

#[test]
fn an_immutable_file_is_executed_once_and_holds_up_nobody() -> Outcome {
    let place = Place::new("inbox: {settle: 100ms}\n")?;
    fs::write(place.path("stuck.json"), place.call(0))?;
    let Some(immutable) = Immutable::make(&place.path("stuck.json")) else { return Ok(()) };
    let running = place.serve()?;
    assert_eq!(response(&place.dir(), "stuck.json")["state"], "succeeded", "nobody waits for it in vain");
    said(&running, "a call file cannot be removed; its call is known");
    for number in 1..=3 {
        let name = format!("{number}.json");
        drop_file(&place.dir(), &name, &place.call(number))?;
        response(&place.dir(), &name);
    }
    // Tried again meanwhile, by the filer and by a reading of the directory.
    pause(Duration::from_secs(6));
    assert_eq!(times_said(&running, "cannot be removed"), 1, "{}", running.stderr());
    assert_eq!(times_said(&running, "cannot put response files in place"), 1, "{}", running.stderr());
    drop(running);
    let again = place.serve()?;
    drop_file(&place.dir(), "4.json", &place.call(4))?;
    response(&place.dir(), "4.json");
    drop(immutable);
    until("the file to leave the inbox", || (!place.path("stuck.json").exists()).then_some(()));
    drop_file(&place.dir(), "5.json", &place.call(5))?;
    response(&place.dir(), "5.json");
    assert_eq!(place.arrivals(), ["/0", "/1", "/2", "/3", "/4", "/5"]);
    let expected = ["1.json", "2.json", "3.json", "4.json", "5.json", "stuck.json"];
    assert_eq!(names(&place.path("responses"))?, expected);
    until("all requests", || names(&place.path("requests")).ok().filter(|names| names == &expected));
    drop(again);
    Ok(())
}
