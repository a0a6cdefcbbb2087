//! Opening the store's directory: its mode, its lock, the database's version, and the settings of every connection.
//!
//! The lock is an `flock` on the file `lock`, held as long as the store lives and let go by the kernel when the
//! process dies. Nothing in the directory is written before it is held, nor before the database is known to be ours and
//! of a version we know.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::bodies::Bodies;
use super::mark::Mark;
use super::reopen;
use super::schema::{self, Kind};

/// How long a connection waits for a lock of another process, say a user's SQL shell.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// SQLite before 3.51.3 can corrupt a database whose log two connections write or checkpoint at once.
const LIBRARY_VERSION_MIN: i32 = 3_051_003;

/// Pages that a reader may keep, in KiB. Every commit of the writer makes them worthless, so few are enough.
const READER_CACHE_KIB: i64 = 512;

/// Statements kept prepared per connection.
const STATEMENTS: usize = 64;

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another farcall", dir.display())]
    InUse { dir: PathBuf },
    #[error("{} was written by a newer farcall (schema {found}, this one knows {known})", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{} is not a farcall database", path.display())]
    NotAStore { path: PathBuf },
    #[error("{} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{} lacks the last {missing} commits made to it: its log was taken away, or an older copy put in its place", path.display())]
    Behind { path: PathBuf, missing: i64 },
    #[error("SQLite {found} is too old to be safe, 3.51.3 is needed")]
    OldLibrary { found: &'static str },
    #[error("cannot use {}", path.display())]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open {}", path.display())]
    Database {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A store's directory, locked.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) bodies: Bodies,
    /// Absolute.
    pub(super) dir: PathBuf,
    pub(super) mark: Mark,
}

/// Opens or creates the store in `dir`, step by step, so that a crash between any two of them leaves a store that opens.
pub(super) fn open(dir: &Path) -> Result<Opened, OpenError> {
    if rusqlite::version_number() < LIBRARY_VERSION_MIN {
        return Err(OpenError::OldLibrary { found: rusqlite::version() });
    }
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Directory { path, source }
    };
    private_directory(dir).map_err(at(dir))?;
    // Absolute, because SQLite reads a name that begins with "file:" as a URI.
    let dir = dir.canonicalize().map_err(at(dir))?;
    let mark = Mark::in_file(lock(&dir)?);
    let path = database_path(&dir);
    probe(&path)?;
    private_file(&path).map_err(at(&path))?;
    let connection = writer(&path)?;
    check_commits(&connection, &mark, &path)?;
    let bodies = Bodies::open(&dir).map_err(at(&dir))?;
    // The names of database and log were made above; a commit is durable only under durable names.
    sync_directory(&dir).map_err(at(&dir))?;
    Ok(Opened { connection, bodies, dir, mark })
}

/// A connection that can only read. It sees what is committed.
pub(super) fn reader(dir: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database_path(dir), flags)?;
    configure(&connection)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

/// Makes a directory that only its owner may enter, or makes the existing one so.
pub(super) fn private_directory(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => dir.canonicalize()?.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::metadata(dir)?.permissions().mode() & 0o777 == 0o700 {
                return Ok(());
            }
            fs::set_permissions(dir, Permissions::from_mode(0o700))
        }
        Err(error) => Err(error),
    }
}

pub(super) fn database_path(dir: &Path) -> PathBuf {
    dir.join("farcall.db")
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let directory = |source| OpenError::Directory { path: path.clone(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(directory)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(OpenError::InUse { dir: dir.to_owned() }),
        Err(errno) => Err(directory(errno.into())),
    }
}

/// Refuses a database that has lost what was committed to it.
fn check_commits(connection: &Connection, mark: &Mark, path: &Path) -> Result<(), OpenError> {
    let found = reopen::commits(connection).map_err(|error| refused(path, error))?;
    match mark.commits() {
        Some(noted) if noted > found => Err(OpenError::Behind { path: path.to_owned(), missing: noted - found }),
        Some(_) | None => Ok(()),
    }
}

/// Refuses a database that we must not write to, by a connection that cannot.
fn probe(path: &Path) -> Result<(), OpenError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > 0 => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(OpenError::Directory { path: path.to_owned(), source }),
    }
    match onlooker(path).and_then(|connection| schema::kind(&connection)) {
        // A crash in the very first transaction left a journal, and only a writer may roll it back.
        Err(error) if extended_code(&error) == Some(ffi::SQLITE_READONLY_ROLLBACK) => Ok(()),
        kind => known_version(path, kind).map(drop),
    }
}

/// A connection that cannot write, and that makes no log beside a database that has none: for want of a log the
/// file cannot change, so SQLite may be told that it is immutable, which only a URI can tell it.
fn onlooker(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let beside = |extension| path.with_extension(extension).exists();
    if beside("db-wal") || beside("db-journal") {
        return Connection::open_with_flags(path, flags);
    }
    let mut uri = b"file:".to_vec();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'?' | b'#' | b'%' => uri.extend(format!("%{byte:02x}").into_bytes()),
            _ => uri.push(byte),
        }
    }
    uri.extend(b"?immutable=1");
    Connection::open_with_flags(OsStr::from_bytes(&uri), flags | OpenFlags::SQLITE_OPEN_URI)
}

/// The schema version of a database that is ours or empty (0).
fn known_version(path: &Path, kind: rusqlite::Result<Kind>) -> Result<i64, OpenError> {
    match kind.map_err(|error| refused(path, error))? {
        Kind::Empty => Ok(0),
        Kind::Ours(found) if found > schema::VERSION => {
            Err(OpenError::Newer { path: path.to_owned(), found, known: schema::VERSION })
        }
        Kind::Ours(version) => Ok(version),
        Kind::Foreign => Err(OpenError::NotAStore { path: path.to_owned() }),
    }
}

/// Makes the database's file, so that it has our mode and not the umask's. SQLite gives the log the same mode.
fn private_file(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

pub(super) fn writer(path: &Path) -> Result<Connection, OpenError> {
    let failed = |error| refused(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    configure(&connection).map_err(failed)?;
    let version = known_version(path, schema::kind(&connection))?;
    journal(&connection).and_then(|()| schema::migrate(&mut connection, version)).map_err(failed)?;
    Ok(connection)
}

/// A log that is synced by every commit, and checkpointed by us alone.
fn journal(connection: &Connection) -> rusqlite::Result<()> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        let reason = "its file system cannot hold a write-ahead log".to_owned();
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(reason)));
    }
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans do not depend on what is bound, or statements beside a partial index would be planned anew at every use.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Finds damaged pages when they are read, for the price of a scan of each page's cell pointers.
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn refused(path: &Path, error: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotAStore { path },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, source: error.into() },
        Some(_) | None => OpenError::Database { path, source: error.into() },
    }
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|failure| failure.extended_code)
}
