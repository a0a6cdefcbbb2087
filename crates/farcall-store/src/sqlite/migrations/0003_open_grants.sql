-- Slots that attempts hold whose calls are not stored (somebody waits for them on a connection). When such an attempt has ended,
-- what it counts is added to the sums of `grants`.
CREATE TABLE open_grants (
    call       BLOB    NOT NULL,
    number     INTEGER NOT NULL,
    limit_key  TEXT    NOT NULL,
    granted_at INTEGER NOT NULL,
    cost       INTEGER NOT NULL,
    PRIMARY KEY (call, number)
) STRICT, WITHOUT ROWID;
