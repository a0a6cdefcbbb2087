-- When calls ended, and what is kept of those that were pruned.

ALTER TABLE calls ADD COLUMN ended_at INTEGER; -- when its end was decided, in steady time; NULL while it lives
-- Nobody kept it before: no earlier than all that is stored.
UPDATE calls SET ended_at = (SELECT coalesce(latest, clock_since, 0) FROM meta) WHERE ended = 1;

-- What may be pruned, by state and in the order of the ends.
CREATE INDEX calls_ended ON calls (state, ended_at, id) WHERE ended_at IS NOT NULL AND filed = 1 AND key IS NULL;
CREATE INDEX calls_ended_keyed ON calls (ended_at, id) WHERE ended_at IS NOT NULL AND key IS NOT NULL;
-- Callbacks that still need the call that they are for.
CREATE INDEX calls_calling_back ON calls (callback_of) WHERE callback_of IS NOT NULL AND ended = 0;

-- What attempts of pruned calls count in limits, summed over times of ten seconds; `latest_at` is the end of each.
CREATE TABLE grants (
    limit_key TEXT    NOT NULL,
    latest_at INTEGER NOT NULL,
    cost      INTEGER NOT NULL,
    PRIMARY KEY (limit_key, latest_at)
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_by_time ON grants (latest_at);
