-- Calls, their attempts, and their bodies apart from them.
--
-- Times are microseconds. What decisions rest on (ready_at, not_before, deadline, granted_at, proved_at, latest_at, until,
-- latest, clock_since) is steady time, which no wall clock moves; what people read (accepted_at, started_at, ended_at,
-- finished_at) is the wall clock's, since 1970 in UTC. Words (state, source, outcome, ...) are those of the API. An id is the 16
-- bytes of its UUID; inside, calls are known by `seq`, the order of acceptance: ids only nearly ascend, wide rows do
-- not belong in the interior pages of a table keyed by them, and every table below keys by the small number.

-- One row. Each commit updates it once, which also checks that the epoch is still the writer's own.
-- accepted = pruned + the ten states.
CREATE TABLE meta (
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    epoch     INTEGER NOT NULL,
    commits   INTEGER NOT NULL, -- batches committed, ever: tells whether one of unknown end is among them
    accepted  INTEGER NOT NULL,
    pruned    INTEGER NOT NULL,
    scheduled INTEGER NOT NULL,
    queued    INTEGER NOT NULL,
    running   INTEGER NOT NULL,
    retrying  INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    expired   INTEGER NOT NULL,
    unknown   INTEGER NOT NULL,
    poisoned  INTEGER NOT NULL,
    latest      INTEGER,  -- when the latest of all that is stored was decided
    boot        TEXT,     -- the boot of the clock below, where it could be told
    clock_base  INTEGER,  -- steady time less the boot clock; NULL until there is one
    clock_since INTEGER   -- when this store was first used in that boot
) STRICT;
INSERT INTO meta VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL);

CREATE TABLE calls (
    seq             INTEGER PRIMARY KEY,
    id              BLOB    NOT NULL,
    ended           INTEGER NOT NULL,
    filed           INTEGER NOT NULL,
    attempts        INTEGER NOT NULL,
    state           TEXT    NOT NULL,
    ready_at        INTEGER, -- while it waits in a lane: from when on it may go on
    retries         INTEGER NOT NULL,
    requeues        INTEGER NOT NULL,
    throttles       INTEGER NOT NULL,
    started_at      INTEGER,
    finished_at     INTEGER,
    status          INTEGER,
    error_kind      TEXT,
    error_message   TEXT,
    source          TEXT    NOT NULL,
    via             TEXT    NOT NULL,
    upstream        TEXT,
    limit_key       TEXT    NOT NULL,
    method          TEXT    NOT NULL,
    url             TEXT    NOT NULL,
    tags            TEXT,    -- a JSON array of strings; NULL when there are none
    priority        INTEGER NOT NULL,
    tenant          TEXT,
    tenant_id       INTEGER NOT NULL, -- the bits of a digest of the tenant's name; 0 for none
    cost            INTEGER NOT NULL,
    accepted_at     INTEGER NOT NULL,
    not_before      INTEGER,
    deadline        INTEGER,
    has_overrides   INTEGER NOT NULL,
    callback_of     BLOB,
    retry_of        BLOB,
    file_name       BLOB,
    file_device     INTEGER, -- device and inode: the bits of an unsigned number
    file_inode      INTEGER,
    file_changed_ns INTEGER,
    key_scope       TEXT,
    key             TEXT,
    key_digest      BLOB
) STRICT;
CREATE UNIQUE INDEX calls_by_id ON calls (id);
CREATE UNIQUE INDEX calls_by_key ON calls (key_scope, key) WHERE key IS NOT NULL;
-- Every lane, in the order in which its calls may go on.
CREATE INDEX calls_waiting ON calls (limit_key, callback_of IS NOT NULL, priority, tenant_id, ready_at, id)
    WHERE ready_at IS NOT NULL;
CREATE INDEX calls_expiring ON calls (deadline, id) WHERE ready_at IS NOT NULL AND deadline IS NOT NULL;
-- Calls that run or are held back.
CREATE INDEX calls_engaged ON calls (ended) WHERE ended = 0 AND ready_at IS NULL;
CREATE INDEX calls_by_file ON calls (file_name) WHERE filed = 0 AND file_name IS NOT NULL;
CREATE INDEX calls_unfiled ON calls (filed) WHERE ended = 1 AND filed = 0;

CREATE TABLE attempts (
    call          INTEGER NOT NULL,
    number        INTEGER NOT NULL,
    kind          TEXT    NOT NULL,
    outcome       TEXT    NOT NULL,
    status        INTEGER,
    started_at    INTEGER NOT NULL,
    granted_at    INTEGER NOT NULL, -- when it took its slots
    proved_at     INTEGER,
    ended_at      INTEGER, -- NULL exactly while the outcome is 'running'
    error_kind    TEXT,
    error_message TEXT,
    limit_key     TEXT    NOT NULL,
    cost          INTEGER NOT NULL,
    latest_at     INTEGER, -- the later of granted_at and proved_at; NULL while it runs, and when it sent nothing
    PRIMARY KEY (call, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_open ON attempts (call) WHERE ended_at IS NULL;
-- With the cost, so that sums over many attempts need no other page.
CREATE INDEX attempts_by_limit ON attempts (limit_key, latest_at, cost) WHERE latest_at IS NOT NULL;

-- Until when an upstream asked everybody to keep away (Retry-After).
CREATE TABLE closings (
    limit_key TEXT    PRIMARY KEY,
    until     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A body that is NULL stands in a file of its own: bodies/<uuid>.request, bodies/<uuid>.response.
-- `sum` is a CRC-32 over the body and what belongs to it, the call's id first.
CREATE TABLE requests (
    call INTEGER PRIMARY KEY,
    body BLOB,
    sum  INTEGER NOT NULL
) STRICT;

CREATE TABLE responses (
    call    INTEGER PRIMARY KEY,
    status  INTEGER NOT NULL,
    headers TEXT    NOT NULL, -- a JSON array of [name, value]; values as ISO 8859-1, so that any bytes come back
    decoded INTEGER NOT NULL,
    body    BLOB,
    sum     INTEGER NOT NULL
) STRICT;
