-- Numbered, applied once, never edited: a change is a new file. Everything stands in the schema of one app.
-- Keys compare by their bytes, as in the other stores, whatever the database's own order is.

CREATE TABLE meta (
    key   text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- An incarnation number is never given twice: a sequence does not go back.
-- `predecessor` and `attempt`: what `reincarnate` was asked; asked again after a lost answer, it answers the same.
CREATE TABLE hosts (
    incarnation bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    node        text NOT NULL,
    machine     text NOT NULL,
    pid         bigint NOT NULL,
    started     double precision NOT NULL,
    dedicated   text NOT NULL,
    fenced      boolean NOT NULL DEFAULT false,
    predecessor bigint,
    attempt     text
) WITH (fillfactor = 50);

CREATE INDEX hosts_standing ON hosts (incarnation) WHERE NOT fenced;

CREATE TABLE shards (
    shard text COLLATE "C" PRIMARY KEY,
    owner bigint NOT NULL,
    epoch bigint NOT NULL
) WITH (fillfactor = 50);

-- Unlogged: a renewal writes no journal and waits for no disk. After a crash of the server it is empty, which whoever
-- watches sees as a change, that is as a renewal: hosts get a whole lease more, never less.
CREATE UNLOGGED TABLE leases (
    incarnation bigint PRIMARY KEY,
    renewed     double precision NOT NULL
) WITH (fillfactor = 50);

-- `position` is the number of the transaction times 2^20, plus the place in it. Drawn from a sequence, a lower one could
-- become visible after a higher one, and a reader that goes on behind the last it saw would miss it; of transactions it is
-- known below which number none is under way. `base` makes up for a server whose transactions count from anew (a restored dump).
CREATE TABLE journal (
    base bigint NOT NULL
);
INSERT INTO journal VALUES (0);

CREATE TABLE entries (
    position    bigint PRIMARY KEY,
    entity      text COLLATE "C" NOT NULL,
    n           bigint NOT NULL,
    seq         bigint NOT NULL,
    events      text,
    command_id  text NOT NULL,
    verdict     integer NOT NULL,
    reply       text NOT NULL,
    at          bigint NOT NULL,
    fingerprint bigint NOT NULL
);

-- Unique: behind the fence, two writers of one entity still cannot both commit.
CREATE UNIQUE INDEX entries_of_entity ON entries (entity, n);

CREATE TABLE states (
    entity  text COLLATE "C" PRIMARY KEY,
    n       bigint NOT NULL,
    seq     bigint NOT NULL,
    state   text NOT NULL,
    version bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE snapshots (
    entity  text COLLATE "C" NOT NULL,
    n       bigint NOT NULL,
    seq     bigint NOT NULL,
    state   text NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (entity, n)
);

CREATE TABLE marks (
    entity text COLLATE "C" PRIMARY KEY,
    n      bigint NOT NULL,
    marks  text NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE outbox (
    entity text COLLATE "C" NOT NULL,
    n      bigint NOT NULL,
    shard  text COLLATE "C" NOT NULL,
    sends  text NOT NULL,
    parked text,
    PRIMARY KEY (entity, n)
);

CREATE INDEX outbox_parked ON outbox (entity, n) WHERE parked IS NOT NULL;

CREATE TABLE reminders (
    entity  text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    shard   text COLLATE "C" NOT NULL,
    due     bigint NOT NULL,
    every   bigint NOT NULL,
    misfire integer NOT NULL,
    PRIMARY KEY (entity, name)
);

-- In the order they are read: a reader goes on behind the last one it saw.
CREATE INDEX reminders_due ON reminders (due, entity, name);

-- What follows are the writes of more than one statement. As functions they are one round trip each, so that no client,
-- frozen or cut off, ever stands between a lock and its end.
-- Errors of Remora's own: RM001 an incarnation has ended, RM002 a term has ended, RM003 a shard was overtaken, RM004 a new
-- owner has ended.

-- One commit of a host: the check of its incarnation and every row it writes, all or nothing. The check takes a share lock:
-- a fence waits for it, and it waits for a fence under way and then sees it. A plain read would see the row before the fence.
-- The jsonb parameters are arrays of rows, or NULL; payloads in them are JSON texts, quoted.
CREATE FUNCTION append_all(
    _host bigint, _entity text[], _n bigint[], _seq bigint[], _events text[], _command_id text[], _verdict integer[],
    _reply text[], _at bigint[], _fingerprint bigint[],
    _deletions jsonb, _states jsonb, _snapshots jsonb, _marks jsonb, _outbox jsonb, _delivered jsonb, _parked jsonb,
    _reminders jsonb, _cancelled jsonb, _trims jsonb
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM hosts WHERE incarnation = _host AND NOT fenced FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'RM001', MESSAGE = _host::text;
    END IF;

    INSERT INTO entries (position, entity, n, seq, events, command_id, verdict, reply, at, fingerprint)
    SELECT (SELECT (pg_current_xact_id()::text::bigint + base) << 20 FROM journal) + u.place,
           u.entity, u.n, u.seq, u.events, u.command_id, u.verdict, u.reply, u.at, u.fingerprint
    FROM unnest(_entity, _n, _seq, _events, _command_id, _verdict, _reply, _at, _fingerprint)
        WITH ORDINALITY AS u (entity, n, seq, events, command_id, verdict, reply, at, fingerprint, place);

    IF _deletions IS NOT NULL THEN
        DELETE FROM snapshots s USING jsonb_array_elements(_deletions) d
        WHERE s.entity = d ->> 0 AND s.n < (d ->> 1)::bigint;
        DELETE FROM states s USING jsonb_array_elements(_deletions) d WHERE s.entity = d ->> 0;
        DELETE FROM reminders r USING jsonb_array_elements(_deletions) d WHERE r.entity = d ->> 0;
        DELETE FROM entries e USING jsonb_array_elements(_deletions) d
        WHERE e.entity = d ->> 0 AND e.n <= (d ->> 2)::bigint
          AND e.n < (SELECT max(l.n) FROM entries l WHERE l.entity = e.entity); -- the next number follows the last
        UPDATE entries e SET events = NULL FROM jsonb_array_elements(_deletions) d
        WHERE e.entity = d ->> 0 AND e.n < (d ->> 1)::bigint AND e.events IS NOT NULL;
    END IF;

    IF _states IS NOT NULL THEN
        INSERT INTO states (entity, n, seq, state, version)
        SELECT v ->> 0, (v ->> 1)::bigint, (v ->> 2)::bigint, v ->> 3, (v ->> 4)::bigint
        FROM jsonb_array_elements(_states) v
        ON CONFLICT (entity) DO UPDATE
        SET n = excluded.n, seq = excluded.seq, state = excluded.state, version = excluded.version;
    END IF;

    IF _snapshots IS NOT NULL THEN
        INSERT INTO snapshots (entity, n, seq, state, version)
        SELECT v ->> 0, (v ->> 1)::bigint, (v ->> 2)::bigint, v ->> 3, (v ->> 4)::bigint
        FROM jsonb_array_elements(_snapshots) v
        ON CONFLICT (entity, n) DO UPDATE
        SET seq = excluded.seq, state = excluded.state, version = excluded.version;
        DELETE FROM snapshots s USING jsonb_array_elements(_snapshots) v
        WHERE s.entity = v ->> 0
          AND (SELECT count(*) FROM snapshots o WHERE o.entity = s.entity AND o.n > s.n) >= (v ->> 5)::bigint;
    END IF;

    IF _marks IS NOT NULL THEN
        INSERT INTO marks (entity, n, marks)
        SELECT v ->> 0, (v ->> 1)::bigint, v ->> 2 FROM jsonb_array_elements(_marks) v
        ON CONFLICT (entity) DO UPDATE SET n = excluded.n, marks = excluded.marks;
    END IF;

    IF _outbox IS NOT NULL THEN
        INSERT INTO outbox (entity, n, shard, sends)
        SELECT v ->> 0, (v ->> 1)::bigint, v ->> 2, v ->> 3 FROM jsonb_array_elements(_outbox) v;
    END IF;

    IF _delivered IS NOT NULL THEN
        DELETE FROM outbox o USING jsonb_array_elements(_delivered) d
        WHERE o.entity = d ->> 0 AND o.n = (d ->> 1)::bigint;
    END IF;

    IF _parked IS NOT NULL THEN
        UPDATE outbox o SET parked = p ->> 0, sends = p ->> 1 FROM jsonb_array_elements(_parked) p
        WHERE o.entity = p ->> 2 AND o.n = (p ->> 3)::bigint;
    END IF;

    IF _reminders IS NOT NULL THEN
        INSERT INTO reminders (entity, name, shard, due, every, misfire)
        SELECT v ->> 0, v ->> 1, v ->> 2, (v ->> 3)::bigint, (v ->> 4)::bigint, (v ->> 5)::integer
        FROM jsonb_array_elements(_reminders) v
        ON CONFLICT (entity, name) DO UPDATE
        SET shard = excluded.shard, due = excluded.due, every = excluded.every, misfire = excluded.misfire;
    END IF;

    IF _cancelled IS NOT NULL THEN
        DELETE FROM reminders r USING jsonb_array_elements(_cancelled) c
        WHERE r.entity = c ->> 0 AND r.name = c ->> 1;
    END IF;

    IF _trims IS NOT NULL THEN
        DELETE FROM entries e USING jsonb_array_elements(_trims) t
        WHERE e.entity = t ->> 0 AND e.n <= (t ->> 1)::bigint
          AND e.n < (SELECT max(l.n) FROM entries l WHERE l.entity = e.entity); -- the next number follows the last
    END IF;
END $$;

-- The lock on `shards` comes first in all three that change owners: they take turns, and never wait for each other crosswise.

-- Asked the same (`_attempt`) again after an answer that was lost, it gives that answer.
CREATE FUNCTION reincarnate(_old bigint, _attempt text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _successor bigint;
BEGIN
    LOCK TABLE shards IN SHARE ROW EXCLUSIVE MODE;
    SELECT incarnation INTO _successor FROM hosts WHERE predecessor = _old AND attempt = _attempt AND NOT fenced;
    IF FOUND THEN
        RETURN _successor;
    END IF;
    UPDATE hosts SET fenced = true WHERE incarnation = _old AND NOT fenced;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'RM001', MESSAGE = _old::text;
    END IF;
    INSERT INTO hosts (name, node, machine, pid, started, dedicated, predecessor, attempt)
    SELECT name, node, machine, pid, started, dedicated, _old, _attempt FROM hosts WHERE incarnation = _old
    RETURNING incarnation INTO _successor;
    UPDATE shards SET owner = _successor, epoch = epoch + 1 WHERE owner = _old;
    RETURN _successor;
END $$;

CREATE FUNCTION write_table(
    _term bigint, _version bigint, _fence bigint[], _shard text[], _owner bigint[], _epoch bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _current bigint;
    _found text;
BEGIN
    LOCK TABLE shards IN SHARE ROW EXCLUSIVE MODE;
    SELECT value::bigint INTO _current FROM meta WHERE key = 'term' FOR SHARE;
    IF _current <> _term THEN
        RAISE EXCEPTION USING ERRCODE = 'RM002', MESSAGE = _current::text;
    END IF;
    SELECT s.shard INTO _found
    FROM unnest(_shard, _owner, _epoch) AS a (shard, owner, epoch) JOIN shards s ON s.shard = a.shard
    WHERE s.epoch > a.epoch OR (s.epoch = a.epoch AND a.owner NOT IN (0, s.owner)) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'RM003', MESSAGE = _found;
    END IF;
    UPDATE hosts SET fenced = true WHERE incarnation = ANY (_fence) AND NOT fenced;
    SELECT o::text INTO _found FROM unnest(_owner) o
    WHERE o <> 0 AND NOT EXISTS (SELECT 1 FROM hosts h WHERE h.incarnation = o AND NOT h.fenced) ORDER BY o LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'RM004', MESSAGE = _found;
    END IF;
    INSERT INTO shards (shard, owner, epoch) SELECT * FROM unnest(_shard, _owner, _epoch)
    ON CONFLICT (shard) DO UPDATE SET owner = excluded.owner, epoch = excluded.epoch;
    UPDATE meta SET value = _version::text WHERE key = 'version';
END $$;

CREATE FUNCTION release_shards(_host bigint, _shards text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE shards IN SHARE ROW EXCLUSIVE MODE;
    PERFORM 1 FROM hosts WHERE incarnation = _host AND NOT fenced FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'RM001', MESSAGE = _host::text;
    END IF;
    UPDATE shards SET owner = 0 WHERE shard = ANY (_shards) AND owner = _host;
END $$;
