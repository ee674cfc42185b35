-- The days of history. Nodes may make and drop them, and nothing else of the schema: these
-- functions run as its owner, over the four tables that are parted by day and no other.

CREATE FUNCTION daily_tables() RETURNS TABLE (parent text, instant text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    VALUES ('execution_history', 'scheduled_for'), ('attempts', 'scheduled_for'),
        ('outputs', 'scheduled_for'), ('events', 'at')
$$;

-- The days there are, from the catalogue: the name says which.
CREATE VIEW days WITH (security_invoker = true) AS
SELECT t.parent, to_date(right(c.relname, 8), 'YYYYMMDD') AS day
FROM daily_tables() AS t
JOIN pg_inherits i ON i.inhparent = t.parent::regclass
JOIN pg_class c ON c.oid = i.inhrelid
WHERE c.relname ~ '_[0-9]{8}$';

-- Makes one day of one table, with what the default partition holds of it; false where it is
-- there. The default partition is locked against everybody first, for
-- readers that turn into writers would else wait for us while we wait for them; the lock is
-- waited for by lock_timeout at most, since everybody who comes after waits behind it.
CREATE FUNCTION make_day(parent text, day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
    part text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    rest text := format('%s_other', parent);
    instant text;
    first timestamptz := day::timestamp AT TIME ZONE 'UTC';
    beyond timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
    SELECT t.instant INTO STRICT instant FROM daily_tables() AS t WHERE t.parent = make_day.parent;
    PERFORM pg_advisory_xact_lock(hashtext('days'), hashtext(parent));
    IF to_regclass(part) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', rest);
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS'
        ' INCLUDING INDEXES INCLUDING STORAGE)', part, parent);
    EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= $1 AND %2$I < $2 RETURNING *)'
        ' INSERT INTO %I SELECT * FROM moved', rest, instant, part) USING first, beyond;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        parent, part, first, beyond);
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', part);
    RETURN true;
END $$;

-- Drops one day of one table; false where it is gone.
CREATE FUNCTION drop_day(parent text, day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
    part text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
BEGIN
    PERFORM FROM daily_tables() AS t WHERE t.parent = drop_day.parent;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('days'), hashtext(parent));
    IF to_regclass(part) IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I', part);
    RETURN true;
END $$;
