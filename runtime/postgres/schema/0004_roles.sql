-- Who may do what: the owner migrates; `tickwright_node` works over all tenants; `tickwright_api`
-- sees the tenant that its transaction has set, and nothing without one.

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO tickwright_node;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO tickwright_node;
REVOKE INSERT, UPDATE, DELETE ON days, all_executions FROM tickwright_node;

-- What is nobody's: the API shows it, and pauses the house.
GRANT SELECT ON house, leaderships, nodes, all_executions TO tickwright_api;
GRANT UPDATE (paused, paused_reason) ON house TO tickwright_api;
GRANT UPDATE (paused) ON leaderships TO tickwright_api;
GRANT USAGE ON SEQUENCE execution_ids TO tickwright_api;

-- What is a tenant's. A partition is reached through its parent, whose policies hold there.
DO $$
DECLARE
    name text;
    parted boolean;
BEGIN
    FOR name, parted IN
        SELECT c.relname, c.relispartition FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY node ON %I TO tickwright_node USING (true) WITH CHECK (true)',
            name);
        CONTINUE WHEN parted;
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO tickwright_api', name);
        EXECUTE format($p$CREATE POLICY tenant ON %I TO tickwright_api
            USING (tenant = current_setting('tickwright.tenant', true))
            WITH CHECK (tenant = current_setting('tickwright.tenant', true))$p$, name);
    END LOOP;
END $$;

-- Nodes make and drop days, by the owner's functions.
REVOKE ALL ON FUNCTION make_day(text, date), drop_day(text, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_day(text, date), drop_day(text, date) TO tickwright_node;

-- A pause of the whole house takes back what every tenant has in the table for instants to come;
-- see runtime/postgres/operations/withdraw.py for one job's. Whoever pauses has locked the
-- leaderships, so no fire is under way.
CREATE FUNCTION withdraw_all(instant timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public AS $$
    WITH ahead AS MATERIALIZED (
        SELECT id FROM executions
        WHERE origin = 0 AND scheduled_for > instant
            AND state IN ('scheduled', 'blocked') AND attempt = 0 AND run = 1
        ORDER BY id
        FOR UPDATE
    ), gone AS (
        DELETE FROM executions WHERE id IN (SELECT id FROM ahead) RETURNING job_key, scheduled_for
    ), earliest AS (
        SELECT job_key, min(scheduled_for) AS scheduled_for FROM gone GROUP BY job_key
    )
    UPDATE schedules s
    SET cursor = least(s.cursor, instant),
        next_fire_at = least(s.next_fire_at, e.scheduled_for)
    FROM earliest e
    WHERE s.job_key = e.job_key
$$;
REVOKE ALL ON FUNCTION withdraw_all(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION withdraw_all(timestamptz) TO tickwright_api;
