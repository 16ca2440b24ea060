-- What failed: one row for all failures of an entity's command with one exception, the last one in full.

CREATE TABLE failures (
    entity   TEXT NOT NULL,
    command  TEXT NOT NULL,
    kind     TEXT NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms  INTEGER NOT NULL,
    times    INTEGER NOT NULL,
    latest   TEXT NOT NULL,
    PRIMARY KEY (entity, command, kind)
) WITHOUT ROWID;

CREATE INDEX failures_by_time ON failures (last_ms, entity, command, kind);
