//! The schema and its versions: numbered SQL files, applied in order, each in a transaction of its own.
//!
//! The version is SQLite's `user_version`, and `application_id` tells our files from other programs'. A database of a
//! newer version is refused before anything of it is written; there is no way back to an older version.

use rusqlite::{Connection, TransactionBehavior};

/// `farc`, in the field of the database header that is there for such a mark.
const APPLICATION_ID: i64 = 0x6661_7263;

/// Each file brings the schema from the version before it (its place here) to its own number.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_calls.sql"),
    include_str!("migrations/0002_trace.sql"),
    include_str!("migrations/0003_open_grants.sql"),
];

/// The version this program writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// What an existing database is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is nothing in it yet.
    Empty,
    /// Ours, of this version.
    Ours(i64),
    /// Another program's.
    Foreign,
}

/// What this database is; reads only.
///
/// # Errors
/// When it cannot be read, or is no database.
pub(super) fn kind(connection: &Connection) -> rusqlite::Result<Kind> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let version = number("user_version")?;
    if number("application_id")? == APPLICATION_ID {
        return Ok(Kind::Ours(version));
    }
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(if version == 0 && objects == 0 { Kind::Empty } else { Kind::Foreign })
}

/// Brings a database of this version (0 for an empty one) to [`VERSION`].
///
/// # Errors
/// When a migration cannot be applied; those before it stay applied.
pub(super) fn migrate(connection: &mut Connection, from: i64) -> rusqlite::Result<()> {
    let done = usize::try_from(from).unwrap_or(0);
    for (sql, version) in MIGRATIONS.iter().zip(1_i64..).skip(done) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", version)?;
        tx.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migrated() -> rusqlite::Result<Connection> {
        let mut connection = Connection::open_in_memory()?;
        assert_eq!(kind(&connection)?, Kind::Empty);
        migrate(&mut connection, 0)?;
        Ok(connection)
    }

    #[test]
    fn migrations_bring_an_empty_database_to_the_present_version() -> rusqlite::Result<()> {
        let mut connection = migrated()?;
        assert_eq!(kind(&connection)?, Kind::Ours(VERSION));
        migrate(&mut connection, VERSION)?;
        assert_eq!(kind(&connection)?, Kind::Ours(VERSION));
        Ok(())
    }

    #[test]
    fn a_database_of_an_earlier_version_keeps_what_is_in_it() -> rusqlite::Result<()> {
        let mut connection = Connection::open_in_memory()?;
        connection.execute_batch(MIGRATIONS[0])?;
        connection.execute_batch("UPDATE meta SET accepted = 7")?;
        migrate(&mut connection, 1)?;
        assert_eq!(kind(&connection)?, Kind::Ours(VERSION));
        let accepted: i64 = connection.query_row("SELECT accepted FROM meta", [], |row| row.get(0))?;
        let traced: i64 = connection.query_row("SELECT count(trace) FROM calls", [], |row| row.get(0))?;
        assert_eq!((accepted, traced), (7, 0));
        Ok(())
    }

    #[test]
    fn a_database_of_another_program_is_foreign() -> rusqlite::Result<()> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch("CREATE TABLE notes (text TEXT)")?;
        assert_eq!(kind(&connection)?, Kind::Foreign);
        Ok(())
    }
}
