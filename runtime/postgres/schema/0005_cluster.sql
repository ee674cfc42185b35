-- Several nodes: no two that live have one name, one can be drained, and the number of leaderships
-- can be changed while they run.

-- Of those that ended without anyone having said so, only the last holds its name.
UPDATE nodes n SET state = 'dead', leads = '{}'
WHERE n.state IN ('up', 'draining')
    AND EXISTS (SELECT FROM nodes later WHERE later.name = n.name
        AND later.incarnation > n.incarnation AND later.state IN ('up', 'draining'));
CREATE UNIQUE INDEX nodes_name ON nodes (name) WHERE state IN ('up', 'draining');

-- The API's role asks a node to leave; the node reads it with its next beat.
CREATE FUNCTION drain_node(node text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH asked AS (
        UPDATE nodes SET state = 'draining' WHERE name = node AND state = 'up' RETURNING 1
    )
    SELECT EXISTS (SELECT FROM asked)
        OR EXISTS (SELECT FROM nodes WHERE name = node AND state = 'draining')
$$;
REVOKE ALL ON FUNCTION drain_node(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drain_node(text) TO tickwright_api;

-- How many there are, in the row that a new term writes: read beside it, it could be the number
-- before a change that the term waited for.
ALTER TABLE leaderships ADD COLUMN total smallint NOT NULL DEFAULT 1;
UPDATE leaderships SET total = (SELECT count(*) FROM leaderships);

-- Every leadership begins a term above all that any of them has had, so that an epoch never comes
-- back with a number that left and returned. Whoever fires holds its row, so it commits before
-- this, or finds its epoch over. Returns how many there were.
CREATE FUNCTION reshard(wanted integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    had integer;
    reached bigint;
    stopped boolean;
BEGIN
    IF wanted NOT BETWEEN 1 AND 256 THEN
        RAISE EXCEPTION 'timer.shards is a whole number from 1 to 256';
    END IF;
    PERFORM FROM leaderships ORDER BY number FOR UPDATE;
    SELECT count(*), max(epoch) + 1, bool_or(paused) INTO had, reached, stopped FROM leaderships;
    IF had <> wanted THEN
        DELETE FROM leaderships WHERE number >= wanted;
        UPDATE leaderships SET epoch = reached, total = wanted;
        INSERT INTO leaderships (number, epoch, paused, total)
        SELECT n, reached, stopped, wanted FROM generate_series(had, wanted - 1) AS n;
    END IF;
    RETURN had;
END $$;
REVOKE ALL ON FUNCTION reshard(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reshard(integer) TO tickwright_node, tickwright_api;

-- Nobody's temporary tables take the place of ours in what runs by the owner's rights.
ALTER FUNCTION withdraw_all(timestamptz) SET search_path = public, pg_temp;

-- Where a schema's usage is not everybody's, as in one that was made anew.
GRANT USAGE ON SCHEMA public TO tickwright_node, tickwright_api;
