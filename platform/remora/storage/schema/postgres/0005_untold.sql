-- How many failures of a row their supervisor has still to be told of.

ALTER TABLE failures ADD COLUMN untold bigint NOT NULL DEFAULT 0;

CREATE INDEX failures_untold ON failures (last_ms, entity, command, kind) WHERE untold > 0;

DROP FUNCTION add_failures(jsonb, bigint);

CREATE FUNCTION add_failures(_rows jsonb, _kept bigint, _untold_kept bigint) RETURNS void LANGUAGE sql AS $$
    -- In one order, so that two hosts that add the same rows do not wait for each other in a circle.
    INSERT INTO failures
    SELECT r ->> 0, r ->> 1, r ->> 2, (r ->> 3)::bigint, (r ->> 4)::bigint, (r ->> 5)::bigint, r ->> 6,
        (r ->> 7)::bigint
    FROM jsonb_array_elements(_rows) r ORDER BY r ->> 0, r ->> 1, r ->> 2
    ON CONFLICT (entity, command, kind) DO UPDATE SET
        first_ms = least(failures.first_ms, excluded.first_ms),
        last_ms = greatest(failures.last_ms, excluded.last_ms),
        times = failures.times + excluded.times,
        untold = failures.untold + excluded.untold,
        latest = CASE WHEN excluded.last_ms >= failures.last_ms THEN excluded.latest ELSE failures.latest END;

    DELETE FROM failures WHERE untold = 0 AND (last_ms, entity, command, kind) <= (
        SELECT last_ms, entity, command, kind FROM failures
        ORDER BY last_ms DESC, entity DESC, command DESC, kind DESC OFFSET _kept LIMIT 1);

    DELETE FROM failures WHERE (last_ms, entity, command, kind) <= (
        SELECT last_ms, entity, command, kind FROM failures
        ORDER BY last_ms DESC, entity DESC, command DESC, kind DESC OFFSET _untold_kept LIMIT 1);
$$;

CREATE FUNCTION told(_rows jsonb) RETURNS void LANGUAGE sql AS $$
    -- Locked in the order in which they are added to.
    WITH found AS MATERIALIZED (
        SELECT f.entity, f.command, f.kind, (r ->> 7)::bigint AS count
        FROM failures f, jsonb_array_elements(_rows) r
        WHERE f.entity = r ->> 0 AND f.command = r ->> 1 AND f.kind = r ->> 2
        ORDER BY f.entity, f.command, f.kind FOR UPDATE OF f)
    UPDATE failures f SET untold = greatest(f.untold - found.count, 0) FROM found
    WHERE f.entity = found.entity AND f.command = found.command AND f.kind = found.kind;
$$;
