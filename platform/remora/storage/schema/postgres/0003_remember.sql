-- Entities that whoever owns their shard activates without being asked (EntityOptions(remember=True)).

CREATE TABLE remembered (
    entity text COLLATE "C" PRIMARY KEY,
    shard  text COLLATE "C" NOT NULL
);

CREATE INDEX remembered_of_shard ON remembered (shard, entity);

-- As before, and these rows with it.
DROP FUNCTION append_all(bigint, text[], bigint[], bigint[], text[], text[], integer[], text[], bigint[], bigint[], jsonb, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb);

CREATE FUNCTION append_all(
    _host bigint, _entity text[], _n bigint[], _seq bigint[], _events text[], _command_id text[], _verdict integer[],
    _reply text[], _at bigint[], _fingerprint bigint[],
    _deletions jsonb, _states jsonb, _snapshots jsonb, _marks jsonb, _outbox jsonb, _delivered jsonb, _parked jsonb,
    _reminders jsonb, _cancelled jsonb, _trims jsonb, _remembered jsonb, _forgotten jsonb
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

    IF _remembered IS NOT NULL THEN
        INSERT INTO remembered (entity, shard)
        SELECT v ->> 0, v ->> 1 FROM jsonb_array_elements(_remembered) v
        ON CONFLICT (entity) DO UPDATE SET shard = excluded.shard;
    END IF;

    IF _forgotten IS NOT NULL THEN
        DELETE FROM remembered r USING jsonb_array_elements(_forgotten) f WHERE r.entity = f ->> 0;
    END IF;
END $$;
