//! Whether a write failed because a quota is used up.
//!
//! SQLite tells a full disk (ENOSPC) from other failed writes, and a used-up quota (EDQUOT) from none. So the file system is
//! asked again, with a file that nobody sees.

use rusqlite::ffi::SQLITE_IOERR_WRITE;

use super::bodies::Bodies;
use crate::port::CommitError;

/// More than any batch writes: less may still fit where a batch did not.
const ROOM_BYTES: u64 = 8 << 20;

/// `Full` for a write that failed where nothing more can be written; any other error as it is.
///
/// A failed write is certain, unlike a failed sync: SQLite had not come to the frame that makes the batch valid, or has not
/// written all of it.
pub(super) fn judge(error: CommitError, bodies: &Bodies) -> CommitError {
    let CommitError::Io(cause) = &error else { return error };
    let code = cause.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_extended_error_code);
    if code != Some(SQLITE_IOERR_WRITE) {
        return error;
    }
    match bodies.find_room(ROOM_BYTES).map_err(CommitError::from) {
        Err(CommitError::Full) => CommitError::Full,
        Ok(()) | Err(_) => error,
    }
}
