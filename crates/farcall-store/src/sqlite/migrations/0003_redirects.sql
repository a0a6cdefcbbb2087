-- Where redirects have led calls.

-- JSON; limit_key is that of this place then. NULL for a call that goes to its own URL, and for one that has ended.
ALTER TABLE calls ADD COLUMN hop TEXT;
