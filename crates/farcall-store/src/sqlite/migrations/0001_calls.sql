-- A call's life, mostly as rows that are added once: `calls` when it is accepted, `attempts` when an attempt has ended, `ends` and
-- `responses` when the call has. What comes and goes stands in small tables of its own: `waiting`, `open_attempts`, `live`, `unfiled`.
-- Together they are the view `call_records`.
--
-- Times are microseconds. What decisions rest on (ready_at, not_before, deadline, granted_at, proved_at, ended_at of ends,
-- latest_at, until, latest, clock_since) is steady time, which no wall clock moves; what people read (accepted_at, started_at,
-- ended_at of attempts, finished_at) is the wall clock's, since 1970 in UTC. Words (state, source, outcome, ...) are those of the
-- API. An id is the 16 bytes of its UUID; inside, calls are known by `seq`, the order of acceptance: ids only nearly ascend, wide
-- rows do not belong in the interior pages of a table keyed by them, and every table below keys by the small number.

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
    summed      INTEGER NOT NULL, -- attempts up to this `n` are in the sums of `grants`
    latest      INTEGER,  -- when the latest of all that is stored was decided
    boot        TEXT,     -- the boot of the clock below, where it could be told
    clock_base  INTEGER,  -- steady time less the boot clock; NULL until there is one
    clock_since INTEGER   -- when this store was first used in that boot
) STRICT;
INSERT INTO meta VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL);

-- What never changes, but for a key that is freed.
CREATE TABLE calls (
    seq             INTEGER PRIMARY KEY,
    id              BLOB    NOT NULL,
    state           TEXT    NOT NULL, -- as it was accepted, with the next: what holds until anything has happened
    ready_at        INTEGER, -- its first place in its lane: from when on it may go on
    source          TEXT    NOT NULL,
    via             TEXT    NOT NULL,
    upstream        TEXT,
    limit_key       TEXT    NOT NULL,
    method          TEXT    NOT NULL,
    url             TEXT    NOT NULL,
    priority        INTEGER NOT NULL,
    tenant_id       INTEGER NOT NULL, -- the bits of a digest of the tenant's name; 0 for none
    cost            INTEGER NOT NULL,
    accepted_at     INTEGER NOT NULL,
    has_overrides   INTEGER NOT NULL,
    -- What most calls do not have.
    tags            TEXT,    -- a JSON array of strings; NULL when there are none
    tenant          TEXT,
    not_before      INTEGER,
    deadline        INTEGER,
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
CREATE INDEX calls_calling_back ON calls (callback_of) WHERE callback_of IS NOT NULL;

-- Every lane, in the order in which its calls may go on.
CREATE TABLE waiting (
    limit_key    TEXT    NOT NULL,
    of_callbacks INTEGER NOT NULL,
    priority     INTEGER NOT NULL,
    tenant_id    INTEGER NOT NULL,
    ready_at     INTEGER NOT NULL,
    id           BLOB    NOT NULL,
    call         INTEGER NOT NULL,
    PRIMARY KEY (limit_key, of_callbacks, priority, tenant_id, ready_at, id)
) STRICT, WITHOUT ROWID;

-- Calls that wait and have a deadline.
CREATE TABLE expiring (
    deadline INTEGER NOT NULL,
    id       BLOB    NOT NULL,
    call     INTEGER NOT NULL,
    PRIMARY KEY (deadline, id)
) STRICT, WITHOUT ROWID;

-- Where calls stand that have not ended and of which more is to be said than that they wait where they were accepted,
-- or that their first attempt is out: held back, tried before, hedged, to be cancelled.
CREATE TABLE live (
    call             INTEGER PRIMARY KEY,
    state            TEXT    NOT NULL,
    ready_at         INTEGER, -- while it waits in a lane
    attempts         INTEGER NOT NULL,
    started_at       INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    retries          INTEGER NOT NULL DEFAULT 0,
    requeues         INTEGER NOT NULL DEFAULT 0,
    throttles        INTEGER NOT NULL DEFAULT 0,
    deaths           INTEGER NOT NULL DEFAULT 0, -- attempts whose handling broke down
    orphaned         INTEGER NOT NULL DEFAULT 0, -- in a row: attempts that had just begun when farcall died
    finished_at      INTEGER,
    status           INTEGER,
    error_kind       TEXT,
    error_message    TEXT,
    limit_key        TEXT, -- where redirects have led it; NULL at home
    hop              TEXT  -- JSON; NULL for a call that goes to its own URL
) STRICT;
-- Those that run or are held back.
CREATE INDEX live_engaged ON live (call) WHERE ready_at IS NULL;

-- How calls ended.
CREATE TABLE ends (
    call             INTEGER PRIMARY KEY,
    state            TEXT    NOT NULL,
    ended_at         INTEGER NOT NULL, -- when that was decided
    keyed            INTEGER NOT NULL, -- it holds an idempotency key
    attempts         INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    status           INTEGER,
    error_kind       TEXT,
    error_message    TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    retries          INTEGER NOT NULL DEFAULT 0,
    requeues         INTEGER NOT NULL DEFAULT 0,
    throttles        INTEGER NOT NULL DEFAULT 0,
    deaths           INTEGER NOT NULL DEFAULT 0,
    orphaned         INTEGER NOT NULL DEFAULT 0,
    limit_key        TEXT,
    hop              TEXT
) STRICT;
-- What may be pruned, by state and in the order of the ends.
CREATE INDEX ends_unkeyed ON ends (state, ended_at) WHERE keyed = 0;
CREATE INDEX ends_keyed ON ends (ended_at) WHERE keyed = 1;

-- Calls whose response file and request file are not in place.
CREATE TABLE unfiled (
    call  INTEGER PRIMARY KEY,
    name  BLOB, -- of its file
    ended INTEGER NOT NULL
) STRICT;
CREATE INDEX unfiled_by_name ON unfiled (name) WHERE name IS NOT NULL;
CREATE INDEX unfiled_ended ON unfiled (call) WHERE ended = 1;

-- Attempts that are out.
CREATE TABLE open_attempts (
    call       INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    granted_at INTEGER NOT NULL, -- when it took its slots
    limit_key  TEXT    NOT NULL,
    cost       INTEGER NOT NULL,
    PRIMARY KEY (call, number)
) STRICT, WITHOUT ROWID;

-- Attempts that have ended, in the order of their ends.
CREATE TABLE attempts (
    n             INTEGER PRIMARY KEY, -- never given twice
    call          INTEGER NOT NULL,
    number        INTEGER NOT NULL,
    kind          TEXT    NOT NULL,
    outcome       TEXT    NOT NULL,
    status        INTEGER,
    started_at    INTEGER NOT NULL,
    granted_at    INTEGER NOT NULL,
    proved_at     INTEGER, -- NULL when it sent nothing
    ended_at      INTEGER NOT NULL,
    error_kind    TEXT,
    error_message TEXT,
    limit_key     TEXT    NOT NULL,
    cost          INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX attempts_by_call ON attempts (call, number);

-- What attempts count in limits, summed over short times; `latest_at` is the end of each. Those behind meta.summed are not
-- in it yet; those of calls that were pruned are in it, and nowhere else.
CREATE TABLE grants (
    limit_key TEXT    NOT NULL,
    latest_at INTEGER NOT NULL,
    cost      INTEGER NOT NULL,
    PRIMARY KEY (limit_key, latest_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_by_time ON grants (latest_at);
-- Sums over less than ten seconds.
CREATE INDEX grants_fine ON grants (latest_at) WHERE latest_at % 10000000 <> 9999999;

-- Until when an upstream asked everybody to keep away (Retry-After).
CREATE TABLE closings (
    limit_key TEXT    PRIMARY KEY,
    until     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What was set at an upstream while farcall ran: a pause, and keys that were patched. No row for an upstream at which nothing is.
CREATE TABLE upstreams (
    limit_key TEXT    PRIMARY KEY,
    paused    INTEGER NOT NULL,
    patches   TEXT    NOT NULL -- the engine's own form; empty when nothing is patched
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

-- Calls as they stand now: how they ended, else where they stand, else by their first attempt, else as they were accepted.
CREATE VIEW call_records AS
SELECT
    calls.seq, calls.id,
    coalesce(ends.state, live.state, iif(first.call IS NULL, calls.state, 'running')) AS state,
    CASE WHEN ends.call IS NOT NULL THEN NULL
         WHEN live.call IS NOT NULL THEN live.ready_at
         WHEN first.call IS NULL THEN calls.ready_at END AS ready_at,
    coalesce(ends.attempts, live.attempts, first.number, 0) AS attempts,
    coalesce(ends.started_at, live.started_at, first.started_at) AS started_at,
    coalesce(ends.cancel_requested, live.cancel_requested, 0) AS cancel_requested,
    coalesce(ends.retries, live.retries, 0) AS retries,
    coalesce(ends.requeues, live.requeues, 0) AS requeues,
    coalesce(ends.throttles, live.throttles, 0) AS throttles,
    coalesce(ends.deaths, live.deaths, 0) AS deaths,
    coalesce(ends.orphaned, live.orphaned, 0) AS orphaned,
    coalesce(ends.finished_at, live.finished_at) AS finished_at,
    coalesce(ends.status, live.status) AS status,
    coalesce(ends.error_kind, live.error_kind) AS error_kind,
    coalesce(ends.error_message, live.error_message) AS error_message,
    coalesce(ends.limit_key, live.limit_key, calls.limit_key) AS limit_key,
    coalesce(ends.hop, live.hop) AS hop,
    NOT EXISTS (SELECT 1 FROM unfiled WHERE unfiled.call = calls.seq) AS filed,
    live.call IS NOT NULL AS is_live,
    calls.source, calls.via, calls.upstream, calls.method, calls.url, calls.tags, calls.priority, calls.tenant,
    calls.tenant_id, calls.cost, calls.accepted_at, calls.not_before, calls.deadline, calls.has_overrides, calls.callback_of,
    calls.retry_of, calls.file_name, calls.file_device, calls.file_inode, calls.file_changed_ns, calls.key_scope, calls.key,
    calls.key_digest
FROM calls
    LEFT JOIN ends ON ends.call = calls.seq
    LEFT JOIN live ON live.call = calls.seq
    LEFT JOIN open_attempts AS first ON first.call = calls.seq AND first.number = 1;
