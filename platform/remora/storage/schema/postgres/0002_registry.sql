-- What a host says about itself beyond who it is (group, weight, labels, release), as JSON: it is never searched for.
ALTER TABLE hosts ADD COLUMN about text NOT NULL DEFAULT '{}';

CREATE OR REPLACE FUNCTION reincarnate(_old bigint, _attempt text) RETURNS bigint LANGUAGE plpgsql AS $$
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
    INSERT INTO hosts (name, node, machine, pid, started, dedicated, about, predecessor, attempt)
    SELECT name, node, machine, pid, started, dedicated, about, _old, _attempt FROM hosts WHERE incarnation = _old
    RETURNING incarnation INTO _successor;
    UPDATE shards SET owner = _successor, epoch = epoch + 1 WHERE owner = _old;
    RETURN _successor;
END $$;

-- A new term begins only if nobody else began one since the caller looked: of several that try, one leads.
CREATE FUNCTION begin_term(_after bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    _current bigint;
BEGIN
    SELECT value::bigint INTO _current FROM meta WHERE key = 'term' FOR UPDATE;
    IF _after >= 0 AND _current <> _after THEN
        RAISE EXCEPTION USING ERRCODE = 'RM002', MESSAGE = _current::text;
    END IF;
    UPDATE meta SET value = (_current + 1)::text WHERE key = 'term';
    RETURN _current + 1;
END $$;

-- What the registry keeps beside the table. Only the leader writes it.
CREATE FUNCTION set_note(_term bigint, _name text, _text text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    _current bigint;
BEGIN
    SELECT value::bigint INTO _current FROM meta WHERE key = 'term' FOR SHARE;
    IF _current <> _term THEN
        RAISE EXCEPTION USING ERRCODE = 'RM002', MESSAGE = _current::text;
    END IF;
    INSERT INTO meta VALUES ('note:' || _name, _text) ON CONFLICT (key) DO UPDATE SET value = excluded.value;
END $$;
