-- What must outlive a restart so that it does not begin again what must not be.

ALTER TABLE calls ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0; -- attempts whose handling broke down
ALTER TABLE calls ADD COLUMN orphaned INTEGER NOT NULL DEFAULT 0; -- in a row: attempts that had just begun when farcall died
ALTER TABLE calls ADD COLUMN cancel_requested INTEGER NOT NULL DEFAULT 0;
