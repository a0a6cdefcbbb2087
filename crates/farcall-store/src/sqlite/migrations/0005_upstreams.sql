-- What was set at an upstream while farcall ran: a pause, and keys that were patched. No row for an upstream at which nothing is.
CREATE TABLE upstreams (
    limit_key TEXT    PRIMARY KEY,
    paused    INTEGER NOT NULL,
    patches   TEXT    NOT NULL -- the engine's own form; empty when nothing is patched
) STRICT, WITHOUT ROWID;
