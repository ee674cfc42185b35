-- Locks that tasks hold by name. A lock is a beat, not an instant of the schedule: all its times
-- are the database's own (clock_timestamp()), so that no two nodes judge one by two clocks.

-- One for all locks and never set back, so that of two holders the later has the greater token.
CREATE SEQUENCE lock_tokens;

-- A row that nobody holds is kept for a while; a token is drawn only under the lock of its row.
CREATE TABLE locks (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    token bigint NOT NULL DEFAULT 0,              -- of who holds it, or held it last
    execution bigint,
    fencing_token bigint,                         -- of the attempt that holds it; null: nobody
    ttl_s double precision NOT NULL DEFAULT 0,
    taken_at timestamptz,
    expires_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant, name)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

-- Who waits, the first of each node only, in the order of their asking. It is said again at each
-- look; past `until` a waiter is held for gone.
CREATE TABLE lock_waits (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    asked_at timestamptz NOT NULL,
    fencing_token bigint NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (tenant, name, asked_at, fencing_token)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

GRANT SELECT, INSERT, UPDATE, DELETE ON locks, lock_waits TO tickwright_node;
GRANT USAGE ON SEQUENCE lock_tokens TO tickwright_node;
GRANT SELECT, UPDATE ON locks TO tickwright_api;

ALTER TABLE locks ENABLE ROW LEVEL SECURITY;
ALTER TABLE lock_waits ENABLE ROW LEVEL SECURITY;
CREATE POLICY node ON locks TO tickwright_node USING (true) WITH CHECK (true);
CREATE POLICY node ON lock_waits TO tickwright_node USING (true) WITH CHECK (true);
CREATE POLICY tenant ON locks TO tickwright_api
    USING (tenant = current_setting('tickwright.tenant', true))
    WITH CHECK (tenant = current_setting('tickwright.tenant', true));
