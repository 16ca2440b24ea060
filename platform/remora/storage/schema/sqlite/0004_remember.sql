-- Entities that whoever owns their shard activates without being asked (EntityOptions(remember=True)).

CREATE TABLE remembered (
    entity TEXT PRIMARY KEY,
    shard  TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX remembered_of_shard ON remembered (shard, entity);

-- As above, and these rows with it.
DROP VIEW commits;

CREATE VIEW commits AS
SELECT 0 AS incarnation, '' AS entries, '' AS deletions, '' AS states, '' AS snapshots, '' AS marks, '' AS outbox,
       '' AS delivered, '' AS parked, '' AS reminders, '' AS cancelled, '' AS trims,
       '' AS remembered, '' AS forgotten;

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

    INSERT OR REPLACE INTO remembered
    SELECT value ->> 0, value ->> 1 FROM json_each(NEW.remembered);

    DELETE FROM remembered
    WHERE entity IN (SELECT value ->> 0 FROM json_each(NEW.forgotten));
END;
