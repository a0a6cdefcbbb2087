//! What only SQLite can do wrong: its directory, its files, its versions, its log.
//!
//! A refused store must keep its bytes and gain no file. Nothing here kills a process; a crash is a copy of the files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use farcall_core::call::State;
use farcall_store::port::{CommitError, Store};
use farcall_store::sqlite::{OpenError, SqliteStore};
use rusqlite::Connection;

use crate::Outcome;
use crate::lab::{Ask as _, Lab, SqliteLab};
use crate::sample::{
    attempt_end, call, full_call, id, insert, insert_with, response, settle, settle_with, start, waiting,
};

/// Every file below a directory, by name, with its bytes.
fn files(dir: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            files.extend(
                self::files(&entry.path())?.into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)),
            );
        } else {
            files.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(files)
}

/// Opening fails, and no file changes.
fn refuses_untouched(lab: &SqliteLab, expected: impl Fn(&OpenError) -> bool) -> Outcome {
    let before = files(&lab.dir())?;
    let error = SqliteStore::open(&lab.dir()).map(drop).expect_err("the store must be refused");
    assert!(expected(&error), "{error:?}");
    assert!(!error.to_string().is_empty());
    let after = files(&lab.dir())?;
    assert_eq!(after.get("farcall.db"), before.get("farcall.db"), "the database");
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    Ok(())
}

fn mode(path: &Path) -> std::io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() -> Outcome {
    let mut lab = SqliteLab::open()?;
    (&mut lab as &mut dyn Lab).commit(&[insert(call(1))])?;
    let second = SqliteStore::open(&lab.dir());
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    (&mut lab as &mut dyn Lab).commit(&[start(1, 1)])?;
    lab.close();
    assert_eq!(SqliteStore::open(&lab.dir())?.take_over()?.open_attempts.len(), 1);
    Ok(())
}

#[test]
fn a_newer_schema_is_refused_untouched() -> Outcome {
    let mut lab = SqliteLab::open()?;
    lab.close();
    let connection = Connection::open(lab.dir().join("farcall.db"))?;
    let known: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    connection.pragma_update(None, "user_version", known + 1)?;
    connection.close().map_err(|(_, error)| error)?;
    refuses_untouched(
        &lab,
        |error| matches!(error, OpenError::Newer { found, known: ours, .. } if *found == known + 1 && *ours == known),
    )
}

#[test]
fn a_newer_schema_that_stands_in_the_log_only_is_refused_untouched() -> Outcome {
    let (mut lab, mut image) = (SqliteLab::open()?, SqliteLab::open()?);
    lab.close();
    image.close();
    let connection = Connection::open(lab.dir().join("farcall.db"))?;
    connection.pragma_update(None, "user_version", 99)?;
    for name in ["farcall.db", "farcall.db-wal", "farcall.db-shm"] {
        fs::copy(lab.dir().join(name), image.dir().join(name))?;
    }
    let log = fs::read(image.dir().join("farcall.db-wal"))?;
    assert!(!log.is_empty(), "the version stands in the log");
    refuses_untouched(&image, |error| matches!(error, OpenError::Newer { found: 99, .. }))?;
    assert_eq!(fs::read(image.dir().join("farcall.db-wal"))?, log);
    Ok(())
}

#[test]
fn what_is_no_database_of_ours_is_refused_untouched() -> Outcome {
    let mut lab = SqliteLab::open()?;
    lab.close();
    let path = lab.dir().join("farcall.db");
    for garbage in [b"hello".to_vec(), vec![0; 8_192], vec![b'x'; 100_000]] {
        fs::write(&path, garbage)?;
        refuses_untouched(&lab, |error| matches!(error, OpenError::NotAStore { .. }))?;
    }
    fs::remove_file(&path)?;
    Connection::open(&path)?.execute_batch("CREATE TABLE notes (text TEXT)")?;
    refuses_untouched(&lab, |error| matches!(error, OpenError::NotAStore { .. }))
}

#[test]
fn a_damaged_schema_is_refused_untouched() -> Outcome {
    let mut lab = SqliteLab::open()?;
    lab.close();
    let path = lab.dir().join("farcall.db");
    let mut bytes = fs::read(&path)?;
    bytes[100..300].fill(0xff);
    fs::write(&path, bytes)?;
    refuses_untouched(&lab, |error| matches!(error, OpenError::Damaged { .. }))
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let refused = SqliteStore::open(Path::new("/nonexistent/home/.farcall"));
    assert!(matches!(&refused, Err(OpenError::Directory { path, .. }) if path.ends_with(".farcall")), "{refused:?}");
}

#[test]
fn a_directory_may_have_any_name() -> Outcome {
    let home = tempfile::tempdir()?;
    for name in ["file:a?mode=memory", "b#c%41", "ünï \" '"] {
        let dir = home.path().join(name);
        for live in 0..2 {
            let mut store = SqliteStore::open(&dir)?;
            assert_eq!(store.take_over()?.engaged.len(), live as usize, "{name}");
            store.commit(&[insert(call(live))])?;
        }
        assert!(fs::metadata(dir.join("farcall.db"))?.len() > 0, "{name}");
    }
    assert_eq!(fs::read_dir(home.path())?.count(), 3);
    Ok(())
}

#[test]
fn only_the_owner_may_enter() -> Outcome {
    let mut lab = SqliteLab::open()?;
    let big = insert_with(call(1), vec![0; 70_000]);
    (&mut lab as &mut dyn Lab).commit(&[big])?;
    assert_eq!((mode(&lab.dir())?, mode(&lab.dir().join("bodies"))?), (0o700, 0o700));
    for name in files(&lab.dir())?.keys() {
        assert_eq!(mode(&lab.dir().join(name))?, 0o600, "{name}");
    }
    lab.close();
    fs::set_permissions(lab.dir(), fs::Permissions::from_mode(0o755))?;
    lab.restart()?;
    assert_eq!(mode(&lab.dir())?, 0o700);
    Ok(())
}

#[test]
fn an_older_epoch_writes_nothing_more() -> Outcome {
    let mut lab = SqliteLab::open()?;
    (&mut lab as &mut dyn Lab).commit(&[insert(call(1))])?;
    Connection::open(lab.dir().join("farcall.db"))?.execute("UPDATE meta SET epoch = epoch + 1", [])?;
    let fenced = (&mut lab as &mut dyn Lab).commit(&[insert_with(call(2), vec![0; 70_000]), start(1, 1)]);
    assert!(matches!(fenced, Err(CommitError::Conflict { what: "superseded write", .. })), "{fenced:?}");
    assert_eq!(fs::read_dir(lab.dir().join("bodies"))?.count(), 0, "its body file is gone");
    let recovery = lab.restart()?;
    assert_eq!((recovery.engaged.len(), recovery.open_attempts.len()), (1, 0));
    (&mut lab as &mut dyn Lab).commit(&[start(1, 1)])?;
    Ok(())
}

#[test]
fn a_store_that_was_not_taken_over_is_not_written() -> Outcome {
    let home = tempfile::tempdir()?;
    let mut store = SqliteStore::open(&home.path().join(".farcall"))?;
    let refused = store.commit(&[insert(call(1))]);
    assert!(matches!(refused, Err(CommitError::Conflict { what: "superseded write", .. })), "{refused:?}");
    Ok(())
}

#[test]
fn body_files_without_a_row_are_swept() -> Outcome {
    let mut lab = SqliteLab::open()?;
    let (request, answer) = (vec![1; 70_000], vec![2; 80_000]);
    let end = settle_with(1, Some(attempt_end(1)), State::Succeeded, Some(response(answer.clone())));
    (&mut lab as &mut dyn Lab).commit(&[insert_with(call(1), request.clone()), start(1, 1), end, insert(call(2))])?;
    let bodies = lab.dir().join("bodies");
    let kept = [format!("{}.request", id(1).uuid()), format!("{}.response", id(1).uuid()), "notes.txt".to_owned()];
    let orphans = [
        format!("{}.request", id(2).uuid()),
        format!("{}.response", id(2).uuid()),
        format!("{}.request", id(3).uuid()),
        format!("{}.request.tmp", id(1).uuid()),
    ];
    for name in orphans.iter().chain(&kept[2..]) {
        fs::write(bodies.join(name), "left behind")?;
    }
    lab.restart()?;
    let mut expected = kept.to_vec();
    expected.sort();
    assert_eq!(files(&bodies)?.into_keys().collect::<Vec<_>>(), expected);
    let mut reader = (&mut lab as &mut dyn Lab).reader()?;
    assert_eq!(reader.request(id(1))?, Some(request.into()));
    assert_eq!(reader.response(id(1))?, Some(response(answer)));
    Ok(())
}

#[test]
fn a_body_file_that_is_missing_is_an_error_and_not_an_empty_body() -> Outcome {
    let mut lab = SqliteLab::open()?;
    (&mut lab as &mut dyn Lab).commit(&[insert_with(call(1), vec![1; 70_000])])?;
    fs::remove_dir_all(lab.dir().join("bodies"))?;
    let mut reader = (&mut lab as &mut dyn Lab).reader()?;
    assert_eq!(reader.request(id(1)).map_err(|error| error.what), Err("a request"));
    assert_eq!(reader.call(id(1))?, Some(call(1)));
    Ok(())
}

#[test]
fn the_log_stays_short_under_load_and_is_gone_after_a_clean_close() -> Outcome {
    let mut lab = SqliteLab::open()?;
    let log = lab.dir().join("farcall.db-wal");
    let mut longest = 0;
    for batch in 0..12 {
        let writes: Vec<_> = (0..100).map(|n| insert_with(call(batch * 100 + n), vec![7; 60_000])).collect();
        (&mut lab as &mut dyn Lab).commit(&writes)?;
        longest = longest.max(fs::metadata(&log)?.len());
    }
    assert!(longest < 32 << 20, "{longest} bytes of log for 72 MB of bodies");
    lab.close();
    assert!(!fs::exists(&log)?);
    assert_eq!(lab.restart()?.engaged.len(), 1_200);
    Ok(())
}

#[test]
fn files_as_a_crash_leaves_them_open_again() -> Outcome {
    let mut lab = SqliteLab::open()?;
    let big = insert_with(full_call(1), vec![9; 70_000]);
    (&mut lab as &mut dyn Lab).commit(&[big, insert(call(2)), start(2, 1)])?;
    (&mut lab as &mut dyn Lab).commit(&[settle(2, 1, State::Retrying)])?;
    let image = tempfile::tempdir()?;
    let copy = image.path().join(".farcall");
    fs::create_dir_all(copy.join("bodies"))?;
    for (name, bytes) in files(&lab.dir())? {
        if !name.ends_with("-shm") {
            fs::write(copy.join(name), bytes)?;
        }
    }
    let mut store = SqliteStore::open(&copy)?;
    assert_eq!(store.take_over()?, lab.restart()?);
    assert_eq!(store.reader()?.request(id(1))?.map(|body| body.len()), Some(70_000));
    Ok(())
}

#[test]
fn a_crash_in_the_first_transaction_leaves_a_store_that_opens() -> Outcome {
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("farcall.db");
    let connection = Connection::open(&path)?;
    connection.execute_batch("PRAGMA cache_size = 2; BEGIN; CREATE TABLE calls (body BLOB)")?;
    for _ in 0..100 {
        connection.execute("INSERT INTO calls VALUES (zeroblob(8000))", [])?;
    }
    let mut lab = SqliteLab::open()?;
    lab.close();
    fs::remove_dir_all(lab.dir())?;
    fs::create_dir(lab.dir())?;
    for name in ["farcall.db", "farcall.db-journal"] {
        fs::copy(scratch.path().join(name), lab.dir().join(name))?;
    }
    assert!(fs::metadata(lab.dir().join("farcall.db"))?.len() > 0, "pages were spilled");
    assert_eq!(lab.restart()?.totals.accepted, 0);
    (&mut lab as &mut dyn Lab).commit(&[insert(call(1))])?;
    Ok(())
}

#[test]
fn the_kept_counts_are_those_of_the_rows() -> Outcome {
    let mut lab = SqliteLab::open()?;
    for (n, &state) in (0..).zip(State::ALL) {
        (&mut lab as &mut dyn Lab).commit(&[insert(call(n)), insert(call(100 + n)), start(n, 1)])?;
        (&mut lab as &mut dyn Lab).commit(&[settle(n, 1, state)])?;
    }
    let totals = lab.restart()?.totals;
    let connection = Connection::open(lab.dir().join("farcall.db"))?;
    for &state in State::ALL {
        let rows: u64 = connection
            .query_row("SELECT count(*) FROM call_records WHERE state = ?1", [state.as_str()], |row| {
                row.get::<_, i64>(0)
            })?
            .cast_unsigned();
        assert_eq!(totals.of(state), rows, "{state}");
    }
    Ok(())
}

#[test]
fn what_somebody_else_changed_is_not_overwritten() -> Outcome {
    let started = || vec![insert(call(1)), start(1, 1)];
    let ended = "INSERT INTO ends (call, state, ended_at, keyed, attempts) VALUES (1, 'failed', 1, 0, 1)";
    let changes = [
        (vec![insert(waiting(1, 5))], "DELETE FROM waiting", vec![start(1, 1)]),
        (vec![insert(waiting(1, 5))], "DELETE FROM waiting", vec![settle_with(1, None, State::Expired, None)]),
        (started(), ended, vec![settle(1, 1, State::Succeeded)]),
        (started(), "DELETE FROM open_attempts", vec![settle(1, 1, State::Succeeded)]),
        (started(), "DELETE FROM open_attempts", vec![settle(1, 1, State::Retrying)]),
        ([started(), vec![start(1, 2)]].concat(), "UPDATE live SET attempts = 7", vec![start(1, 3)]),
    ];
    for (before, change, writes) in changes {
        let mut lab = SqliteLab::open()?;
        (&mut lab as &mut dyn Lab).commit(&before)?;
        Connection::open(lab.dir().join("farcall.db"))?.execute_batch(change)?;
        let refused = lab.store().commit(&writes);
        assert!(matches!(refused, Err(CommitError::Conflict { call, .. }) if call == id(1)), "{change}: {refused:?}");
        let again = lab.store().commit(&writes);
        assert!(matches!(again, Err(CommitError::Conflict { call, .. }) if call == id(1)), "{change}: {again:?}");
    }
    Ok(())
}
