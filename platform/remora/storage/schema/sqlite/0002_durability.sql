-- Snapshots of their own, several per entity; versions of states; what a command asked; periodic reminders;
-- trimming and deletion.

-- 0 in entries of the first release, which kept none: repeats of those are not compared.
ALTER TABLE entries ADD COLUMN fingerprint INTEGER NOT NULL DEFAULT 0;

-- `states` held snapshots too, one per entity: they are still read where there is none in `snapshots`.
ALTER TABLE states ADD COLUMN version INTEGER NOT NULL DEFAULT 1;

CREATE TABLE snapshots (
    entity  TEXT NOT NULL,
    n       INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    state   TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (entity, n)
) WITHOUT ROWID;

ALTER TABLE reminders ADD COLUMN every INTEGER NOT NULL DEFAULT 0;
ALTER TABLE reminders ADD COLUMN misfire INTEGER NOT NULL DEFAULT 0;

-- In the order they are read: a reader goes on behind the last one it saw.
DROP INDEX reminders_due;
CREATE INDEX reminders_due ON reminders (due, entity, name);

CREATE INDEX outbox_parked ON outbox (entity, n) WHERE parked IS NOT NULL;

DROP VIEW commits;

CREATE VIEW commits AS
SELECT 0 AS incarnation, '' AS entries, '' AS deletions, '' AS states, '' AS snapshots, '' AS marks, '' AS outbox,
       '' AS delivered, '' AS parked, '' AS reminders, '' AS cancelled, '' AS trims;

CREATE TRIGGER commits_write INSTEAD OF INSERT ON commits BEGIN
    SELECT RAISE(ABORT, 'fenced')
    WHERE coalesce((SELECT fenced FROM hosts WHERE incarnation = NEW.incarnation), 1);

    INSERT INTO entries (entity, n, seq, events, command_id, verdict, reply, at, fingerprint)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
           value ->> 8
    FROM json_each(NEW.entries);

    DELETE FROM snapshots
    WHERE (entity, n) IN (
        SELECT s.entity, s.n FROM json_each(NEW.deletions) d
        JOIN snapshots s ON s.entity = d.value ->> 0 AND s.n < d.value ->> 1);
    DELETE FROM states
    WHERE entity IN (SELECT value ->> 0 FROM json_each(NEW.deletions));
    DELETE FROM reminders
    WHERE entity IN (SELECT value ->> 0 FROM json_each(NEW.deletions));
    DELETE FROM entries
    WHERE position IN (
        SELECT e.position FROM json_each(NEW.deletions) d
        JOIN entries e ON e.entity = d.value ->> 0 AND e.n <= d.value ->> 2
        WHERE e.n < (SELECT max(n) FROM entries l WHERE l.entity = e.entity));
    UPDATE entries SET events = NULL
    WHERE position IN (
        SELECT e.position FROM json_each(NEW.deletions) d
        JOIN entries e ON e.entity = d.value ->> 0 AND e.n < d.value ->> 1);

    INSERT OR REPLACE INTO states
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(NEW.states);

    INSERT OR REPLACE INTO snapshots
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(NEW.snapshots);
    DELETE FROM snapshots
    WHERE (entity, n) IN (
        SELECT s.entity, s.n FROM json_each(NEW.snapshots) k
        JOIN snapshots s ON s.entity = k.value ->> 0
        WHERE (SELECT count(*) FROM snapshots o WHERE o.entity = s.entity AND o.n > s.n) >= k.value ->> 5);

    INSERT OR REPLACE INTO marks
    SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(NEW.marks);

    INSERT INTO outbox (entity, n, shard, sends)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(NEW.outbox);

    DELETE FROM outbox
    WHERE (entity, n) IN (SELECT value ->> 0, value ->> 1 FROM json_each(NEW.delivered));

    UPDATE outbox SET parked = p.value ->> 0, sends = p.value ->> 1
    FROM json_each(NEW.parked) p WHERE entity = p.value ->> 2 AND n = p.value ->> 3;

    INSERT OR REPLACE INTO reminders
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(NEW.reminders);

    DELETE FROM reminders
    WHERE (entity, name) IN (SELECT value ->> 0, value ->> 1 FROM json_each(NEW.cancelled));

    DELETE FROM entries
    WHERE position IN (
        SELECT e.position FROM json_each(NEW.trims) t
        JOIN entries e ON e.entity = t.value ->> 0 AND e.n <= t.value ->> 1
        WHERE e.n < (SELECT max(n) FROM entries l WHERE l.entity = e.entity)); -- the next number follows the last entry
END;
