-- The trace that a call belongs to, in the engine's own form; NULL for most.
ALTER TABLE calls ADD COLUMN trace TEXT;
