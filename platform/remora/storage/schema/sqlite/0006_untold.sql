-- How many failures of a row their supervisor has still to be told of.

ALTER TABLE failures ADD COLUMN untold INTEGER NOT NULL DEFAULT 0;

CREATE INDEX failures_untold ON failures (last_ms, entity, command, kind) WHERE untold > 0;
