//! What SQLite's and the file system's errors mean to the port.
//!
//! Only a want of space is told apart: it passes, everything else means that the store has to be opened again.

use std::io;

use rusqlite::ErrorCode;

use crate::port::{CommitError, ReadError};

impl From<rusqlite::Error> for CommitError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(_) | None => Self::Io(error.into()),
        }
    }
}

impl From<io::Error> for CommitError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error.into()),
        }
    }
}

/// Says what could not be read.
pub(super) fn unread<E>(what: &'static str) -> impl FnOnce(E) -> ReadError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |error| ReadError { what, source: error.into() }
}
