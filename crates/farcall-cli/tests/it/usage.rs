//! The command line as scripts rely on it: exit codes, what goes to which stream, `check` and `init`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::rig::command::{Finished, farcall, start};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const BROKEN: &str = "upstreams:\n  etsy:\n    base_url: https://openapi.etsy.com\n    rate_secnd: 10\n";

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

fn chmod(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Runs a command on a directory.
fn on(command: &str, dir: &Path) -> std::io::Result<Finished> {
    farcall(words(command).map(Path::new).chain([dir]))
}

#[test]
fn usage_errors_exit_2_and_say_so_on_stderr() -> Outcome {
    for line in ["", "serv", "serve --no-such-flag", "serve a b", "run --output yaml", "check --server-listen"] {
        let finished = farcall(words(line))?;
        assert_eq!(finished.code, Some(2), "{line}");
        assert_eq!(finished.stdout, "", "{line}");
        assert!(line.is_empty() || finished.stderr.starts_with("error: "), "{line}: {}", finished.stderr);
    }
    Ok(())
}

#[test]
fn help_and_version_go_to_stdout_and_exit_0() -> Outcome {
    for line in ["--help", "-h", "help run", "serve --help", "demo -h", "--version"] {
        let finished = farcall(words(line))?;
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{line}");
        assert!(finished.stdout.to_lowercase().contains("farcall"), "{line}: {}", finished.stdout);
    }
    Ok(())
}

#[test]
fn commands_of_later_versions_are_known() -> Outcome {
    for line in ["functions run addition --x 1", "functions --help"] {
        let finished = farcall(words(line))?;
        let name = words(line).next().unwrap_or_default();
        assert_eq!(finished.code, Some(2), "{line}");
        assert_eq!(finished.stderr, format!("error: farcall {name} is not available yet\n"), "{line}");
    }
    Ok(())
}

#[test]
fn check_shows_every_mistake_with_its_place_and_a_hint() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("farcall.yml"), BROKEN)?;
    let finished = on("check", dir.path())?;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""));
    for part in ["farcall.yml:4:5", "    rate_secnd: 10", "^^^^^^^^^^", "did you mean `rate_second`?", "1 mistake"] {
        assert!(finished.stderr.contains(part), "{part} is missing:\n{}", finished.stderr);
    }
    assert!(!finished.stderr.contains('\u{1b}'), "no colour but on a terminal");
    Ok(())
}

#[test]
fn check_gives_its_findings_to_machines() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("farcall.yml"), BROKEN)?;
    for form in ["json", "ndjson"] {
        let finished = on(&format!("check --output {form}"), dir.path())?;
        assert_eq!(finished.code, Some(2));
        let printed: Value = serde_json::from_str(&finished.stdout)?;
        let finding = if form == "json" { &printed[0] } else { &printed };
        assert_eq!((&finding["line"], &finding["column"]), (&4.into(), &5.into()), "{form}");
        assert_eq!(finding["severity"], "error");
        assert!(finding["path"].as_str().is_some_and(|path| path.ends_with("farcall.yml")), "{form}");
    }
    Ok(())
}

#[test]
fn check_says_what_a_good_configuration_holds() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("farcall.yml"), BROKEN.replace("secnd", "second"))?;
    let finished = on("check", dir.path())?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.starts_with("farcall.yml: ok, 1 upstream (etsy)"), "{}", finished.stdout);
    assert_eq!(fs::read_dir(dir.path())?.count(), 1, "checking makes nothing");
    Ok(())
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("farcall.yml"), "server: { listen: 127.0.0.1:1001 }\n")?;
    let summary = |flag: &[&str], variables: &[(&str, &str)]| -> std::io::Result<String> {
        let args = ["check"].iter().chain(flag).map(Path::new).chain([dir.path()]);
        let finished = match variables {
            [one] => start(args, [*one])?.finish()?,
            _ => farcall(args)?,
        };
        Ok(finished.stdout)
    };
    let variable = [("FARCALL_SERVER_LISTEN", "127.0.0.1:1002")];
    assert!(summary(&[], &[])?.contains("127.0.0.1:1001"));
    assert!(summary(&[], &variable)?.contains("127.0.0.1:1002"));
    assert!(summary(&["--listen", "127.0.0.1:1003"], &variable)?.contains("127.0.0.1:1003"));
    assert!(summary(&["--server-listen", "127.0.0.1:1004"], &variable)?.contains("127.0.0.1:1004"));
    Ok(())
}

#[test]
fn a_mistake_outside_the_file_is_told_under_its_own_name() -> Outcome {
    let dir = tempfile::tempdir()?;
    for (flag, variables, origin) in [
        (vec!["--server-drain-timeout", "soon"], ("X", ""), "--server-drain-timeout"),
        (vec![], ("FARCALL_STORE_MIN_FREE", "much"), "FARCALL_STORE_MIN_FREE"),
        (vec!["--inbox-keep", "long"], ("X", ""), "--inbox-keep"),
        (vec!["--retention-succeeded", "0"], ("X", ""), "--retention-succeeded"),
        (vec![], ("FARCALL_RETENTION_FAILED", "never"), "FARCALL_RETENTION_FAILED"),
    ] {
        let args = ["check"].iter().chain(&flag).map(Path::new).chain([dir.path()]);
        let finished = start(args, [variables])?.finish()?;
        assert_eq!(finished.code, Some(2), "{origin}");
        assert!(finished.stderr.contains(&format!("{origin}:1:1")), "{origin}: {}", finished.stderr);
    }
    Ok(())
}

#[test]
fn init_writes_a_valid_configuration_once() -> Outcome {
    let parent = tempfile::tempdir()?;
    let dir = parent.path().join("calls");
    let finished = on("init", &dir)?;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let path = dir.join("farcall.yml");
    assert_eq!(finished.stdout.trim_end(), path.display().to_string());
    assert_eq!(fs::metadata(&dir)?.permissions().mode() & 0o777, 0o700);
    assert_eq!(on("check", &dir)?.code, Some(0));

    fs::write(&path, "# mine\n")?;
    let again = on("init", &dir)?;
    assert_eq!((again.code, again.stdout.as_str()), (Some(2), ""));
    assert!(again.stderr.contains(&path.display().to_string()), "{}", again.stderr);
    assert_eq!(fs::read_to_string(&path)?, "# mine\n");
    Ok(())
}

#[test]
fn init_leaves_kofafs_configuration_alone() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("kofaf.yml"), "")?;
    let finished = on("init", dir.path())?;
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("kofaf.yml is there already"), "{}", finished.stderr);
    assert!(!dir.path().join("farcall.yml").exists());
    Ok(())
}

#[test]
fn what_everyone_can_write_is_refused_with_7() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("farcall.yml"), "")?;
    for (path, mode, restored) in
        [(dir.path().to_owned(), 0o777, 0o700), (dir.path().join("farcall.yml"), 0o666, 0o600)]
    {
        chmod(&path, mode)?;
        for command in ["serve", "run", "check"] {
            let finished = on(command, dir.path())?;
            assert_eq!(finished.code, Some(7), "{command}: {}", finished.stderr);
            assert!(finished.stderr.contains("o-w"), "{}", finished.stderr);
        }
        chmod(&path, restored)?;
    }
    assert_eq!(on("check", dir.path())?.code, Some(0));
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_one_is_refused_with_7() -> Outcome {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    fs::write(&file, "")?;
    for command in ["serve", "run", "check", "init"] {
        assert_eq!(on(command, &file)?.code, Some(7), "{command}");
    }
    assert_eq!(on("check", &dir.path().join("missing"))?.code, Some(7));
    Ok(())
}

#[test]
fn wrong_configurations_stop_serve_and_run_with_2() -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("farcall.yml"), BROKEN)?;
    for command in ["serve", "run"] {
        let finished = on(command, dir.path())?;
        assert_eq!(finished.code, Some(2));
        assert!(finished.stderr.contains("farcall.yml:4:5"), "{}", finished.stderr);
    }
    assert_eq!(fs::read_dir(dir.path())?.count(), 1, "nothing was made");
    Ok(())
}
