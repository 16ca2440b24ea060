-- What failed: one row for all failures of an entity's command with one exception, the last one in full.

CREATE TABLE failures (
    entity   text COLLATE "C" NOT NULL,
    command  text COLLATE "C" NOT NULL,
    kind     text COLLATE "C" NOT NULL,
    first_ms bigint NOT NULL,
    last_ms  bigint NOT NULL,
    times    bigint NOT NULL,
    latest   text NOT NULL,
    PRIMARY KEY (entity, command, kind)
);

CREATE INDEX failures_by_time ON failures (last_ms, entity, command, kind);

CREATE FUNCTION add_failures(_rows jsonb, _kept bigint) RETURNS void LANGUAGE sql AS $$
    -- In one order, so that two hosts that add the same rows do not wait for each other in a circle.
    INSERT INTO failures
    SELECT r ->> 0, r ->> 1, r ->> 2, (r ->> 3)::bigint, (r ->> 4)::bigint, (r ->> 5)::bigint, r ->> 6
    FROM jsonb_array_elements(_rows) r ORDER BY r ->> 0, r ->> 1, r ->> 2
    ON CONFLICT (entity, command, kind) DO UPDATE SET
        first_ms = least(failures.first_ms, excluded.first_ms),
        last_ms = greatest(failures.last_ms, excluded.last_ms),
        times = failures.times + excluded.times,
        latest = CASE WHEN excluded.last_ms >= failures.last_ms THEN excluded.latest ELSE failures.latest END;

    DELETE FROM failures WHERE (last_ms, entity, command, kind) <= (
        SELECT last_ms, entity, command, kind FROM failures
        ORDER BY last_ms DESC, entity DESC, command DESC, kind DESC OFFSET _kept LIMIT 1);
$$;
