-- What runs, what ran and what happened. What is not final lives in `executions`, what is final
-- in `execution_history`, by day.

CREATE SEQUENCE execution_ids;
CREATE SEQUENCE fencing_tokens;

-- What is running, or will ---------------------------------------------------------------------

CREATE TABLE executions (
    id bigint PRIMARY KEY DEFAULT nextval('execution_ids'),
    created_at timestamptz NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    job_id text COLLATE "C" NOT NULL,
    job_key bigint NOT NULL,
    version integer NOT NULL,
    needs smallint NOT NULL DEFAULT 1,
    origin bigint NOT NULL DEFAULT 0,             -- 0: fired by its schedule; else its own id
    scheduled_for timestamptz NOT NULL,           -- the instant's name
    run integer NOT NULL DEFAULT 1,
    pool text COLLATE "C" NOT NULL,
    priority smallint NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('blocked', 'scheduled', 'running')),
    reason text COLLATE "C",
    overlap text COLLATE "C" NOT NULL,            -- allow | skip | queue | cancel_running
    patient boolean NOT NULL DEFAULT false,       -- waits its turn, whatever `overlap` says
    holds_turn boolean NOT NULL DEFAULT false,
    limit_key text COLLATE "C",
    run_at timestamptz NOT NULL,                  -- instant + jitter, backoff, delay
    expires_at timestamptz,
    at_most_once boolean NOT NULL DEFAULT false,
    max_lost smallint NOT NULL DEFAULT 5,
    attempt integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    losses integer NOT NULL DEFAULT 0,
    fencing_token bigint,
    incarnation bigint,
    started_at timestamptz,                       -- of the attempt under way: its claim
    cancel_requested boolean NOT NULL DEFAULT false,
    keeps boolean NOT NULL DEFAULT false,         -- has checkpoints or once keys of its own
    input bytea,                                  -- JSON
    CHECK ((state = 'running') = (fencing_token IS NOT NULL AND incarnation IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
        autovacuum_vacuum_cost_delay = 0);
-- One row for an instant; what a schedule did not fire is named by its own id as well.
CREATE UNIQUE INDEX executions_instant ON executions (job_key, scheduled_for) WHERE origin = 0;
-- One execution in a job's turn.
CREATE UNIQUE INDEX executions_turn ON executions (job_key) WHERE holds_turn;
-- The order of claims, lane by lane; only these two can serve it.
CREATE INDEX executions_due ON executions (pool, tenant, priority, run_at, id)
    WHERE state = 'scheduled' AND limit_key IS NULL;
CREATE INDEX executions_due_limited ON executions (pool, tenant, priority, limit_key, run_at, id)
    WHERE state = 'scheduled' AND limit_key IS NOT NULL;
CREATE INDEX executions_blocked ON executions (job_key, scheduled_for, id) WHERE state = 'blocked';
-- What was asked for later than now, and is kept out of its job's turn until then.
CREATE INDEX executions_delayed ON executions (run_at)
    WHERE state = 'blocked' AND reason = 'delayed';
CREATE INDEX executions_expiring ON executions (expires_at)
    WHERE expires_at IS NOT NULL AND state <> 'running';
CREATE INDEX executions_cancelling ON executions (incarnation) WHERE cancel_requested;

-- What is final, one partition a day of the instant ---------------------------------------------

CREATE TABLE execution_history (
    id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    job_id text COLLATE "C" NOT NULL,
    job_key bigint NOT NULL,
    version integer NOT NULL,
    needs smallint NOT NULL DEFAULT 1,
    origin bigint NOT NULL DEFAULT 0,
    scheduled_for timestamptz NOT NULL,
    run integer NOT NULL DEFAULT 1,
    pool text COLLATE "C" NOT NULL,
    priority smallint NOT NULL,
    state text COLLATE "C" NOT NULL
        CHECK (state IN ('succeeded', 'dead', 'cancelled', 'skipped')),
    reason text COLLATE "C",
    attempt integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    losses integer NOT NULL DEFAULT 0,
    fencing_token bigint,
    incarnation bigint,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    exit_code integer,
    error text,
    result bytea,                                 -- JSON
    input bytea,                                  -- JSON
    last_scheduled_for timestamptz,               -- of a run of skipped instants: its last,
    instants integer NOT NULL DEFAULT 1,          -- and how many it stands for
    discarded_at timestamptz                      -- a dead letter that somebody put away
) PARTITION BY RANGE (scheduled_for);
CREATE UNIQUE INDEX execution_history_instant
    ON execution_history (job_key, scheduled_for, origin);
CREATE INDEX execution_history_id ON execution_history (tenant, id);
CREATE INDEX execution_history_state ON execution_history (tenant, state, id)
    WHERE state <> 'succeeded';
CREATE INDEX execution_history_dead ON execution_history (tenant, id)
    WHERE state = 'dead' AND discarded_at IS NULL;
-- Runs of skipped instants are looked for by their jobs, and row by row.
CREATE INDEX execution_history_skipped ON execution_history (job_key, scheduled_for)
    WHERE state = 'skipped';
CREATE TABLE execution_history_other PARTITION OF execution_history DEFAULT;

-- The two unique indexes above each refuse a second row for an instant on their side; these
-- bridge them. What moves from one side to the other in one statement passes: both functions look
-- when the statement is done. The settings pin the plan to one index probe a row, whatever the
-- statistics of the day say.
CREATE FUNCTION refuse_decided_instants() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    twice record;
BEGIN
    SELECT n.job_id, n.scheduled_for INTO twice
    FROM inserted n
    CROSS JOIN LATERAL (
        SELECT FROM execution_history h
        WHERE h.job_key = n.job_key AND h.scheduled_for = n.scheduled_for AND h.origin = 0
        LIMIT 1
    ) AS h
    WHERE n.origin = 0
    LIMIT 1;
    IF FOUND THEN
        RAISE unique_violation USING
            MESSAGE = format('%s has a row for %s already', twice.job_id, twice.scheduled_for),
            CONSTRAINT = 'executions_instant';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER executions_instant_once AFTER INSERT ON executions
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_decided_instants();

CREATE FUNCTION refuse_undecided_instant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM executions e
    WHERE e.job_key = NEW.job_key AND e.scheduled_for = NEW.scheduled_for AND e.origin = 0;
    IF FOUND THEN
        RAISE unique_violation USING
            MESSAGE = format('%s has a row for %s already', NEW.job_id, NEW.scheduled_for),
            CONSTRAINT = 'executions_instant';
    END IF;
    RETURN NULL;
END $$;
-- By row, and of skipped ones only: what succeeded was in the other table a moment ago.
CREATE TRIGGER execution_history_instant_once AFTER INSERT ON execution_history
    FOR EACH ROW WHEN (NEW.origin = 0 AND NEW.state = 'skipped')
    EXECUTE FUNCTION refuse_undecided_instant();

-- A first attempt that succeeded is folded into its execution; every other one is a row.
CREATE TABLE attempts (
    id bigint NOT NULL,
    scheduled_for timestamptz NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    attempt integer NOT NULL,
    run integer NOT NULL,
    state text COLLATE "C" NOT NULL
        CHECK (state IN ('succeeded', 'failed', 'timed_out', 'lost', 'cancelled')),
    reason text COLLATE "C",
    fencing_token bigint NOT NULL,
    incarnation bigint NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    exit_code integer,
    error text
) PARTITION BY RANGE (scheduled_for);
CREATE UNIQUE INDEX attempts_key ON attempts (id, attempt, scheduled_for);
CREATE TABLE attempts_other PARTITION OF attempts DEFAULT;

CREATE TABLE outputs (
    id bigint NOT NULL,
    scheduled_for timestamptz NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    attempt integer NOT NULL,
    head bytea NOT NULL,
    tail bytea NOT NULL,
    omitted_bytes bigint NOT NULL
) PARTITION BY RANGE (scheduled_for);
CREATE UNIQUE INDEX outputs_key ON outputs (id, attempt, scheduled_for);
CREATE TABLE outputs_other PARTITION OF outputs DEFAULT;

-- A limited key: a row of its holders, by execution id.
CREATE TABLE limits (
    tenant text COLLATE "C" NOT NULL,
    limit_key text COLLATE "C" NOT NULL,
    most integer NOT NULL CHECK (most > 0),
    holders bigint[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant, limit_key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

-- The row of a job's limit comes with the version that sets it, and keeps its holders.
CREATE FUNCTION keep_limit_of_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO limits (tenant, limit_key, most)
    VALUES (NEW.tenant, NEW.limit_key, NEW.concurrency_limit)
    ON CONFLICT (tenant, limit_key) DO UPDATE SET most = excluded.most;
    RETURN NULL;
END $$;
CREATE TRIGGER job_versions_limit AFTER INSERT ON job_versions
    FOR EACH ROW WHEN (NEW.limit_key IS NOT NULL) EXECUTE FUNCTION keep_limit_of_version();

-- What a blocked execution waits for. No foreign key: its trigger would run for every finish, and
-- only what is `blocked: dependency` has edges; whoever ends that state deletes them with it.
CREATE TABLE wait_edges (
    child_id bigint NOT NULL,                     -- an execution
    parent_key bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    PRIMARY KEY (child_id, parent_key)
);
CREATE INDEX wait_edges_parent ON wait_edges (parent_key);

-- What jobs keep ---------------------------------------------------------------------------------

CREATE TABLE checkpoints (
    tenant text COLLATE "C" NOT NULL,
    job_key bigint NOT NULL,
    execution bigint NOT NULL,                    -- 0: of the job, for executions to come
    value bytea NOT NULL,                         -- JSON
    fencing_token bigint NOT NULL,
    saved_at timestamptz NOT NULL,
    PRIMARY KEY (job_key, execution)
);
CREATE INDEX checkpoints_saved ON checkpoints (saved_at) WHERE execution <> 0;

CREATE TABLE once_keys (
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    execution bigint NOT NULL,
    fencing_token bigint NOT NULL,
    ttl_s double precision NOT NULL,
    expires_at timestamptz,                       -- null until its execution has succeeded
    PRIMARY KEY (tenant, key)
);
CREATE INDEX once_keys_execution ON once_keys (execution);
CREATE INDEX once_keys_expiry ON once_keys (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX once_keys_open ON once_keys (execution) WHERE expires_at IS NULL;

CREATE TABLE idempotency_keys (
    tenant text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,              -- which operation, on what
    key text COLLATE "C" NOT NULL,
    body_hash bytea NOT NULL,
    answer jsonb NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, scope, key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

-- What happened ----------------------------------------------------------------------------------

-- One row per statement that changed executions, in its transaction. Readers go by
-- (xid, number) and stop below pg_snapshot_xmin(pg_current_snapshot()): a sequence alone would
-- skip what commits late.
CREATE TABLE events (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    number bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    kind text COLLATE "C" NOT NULL,               -- fired triggered claimed finished retried ...
    tenant text COLLATE "C",                      -- of an event that is one tenant's
    name text COLLATE "C",                        -- of a user's event
    ids bigint[] NOT NULL DEFAULT '{}',           -- executions,
    job_keys bigint[] NOT NULL DEFAULT '{}',      -- their jobs,
    states text[] NOT NULL DEFAULT '{}',          -- and what they became
    payload jsonb
) PARTITION BY RANGE (at);
CREATE INDEX events_order ON events (xid, number);
CREATE TABLE events_other PARTITION OF events DEFAULT;

-- Who reads on from where: `triggers` makes what follows from events, and `folds` remembers the job
-- it came to.
CREATE TABLE event_readers (
    name text COLLATE "C" PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT '0',
    number bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO event_readers (name) VALUES ('triggers'), ('folds');

CREATE TABLE audit (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    who text NOT NULL,
    action text COLLATE "C" NOT NULL,
    target text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_tenant ON audit (tenant, number);

-- For people -------------------------------------------------------------------------------------

-- protocols/ids.py, in SQL: the public id of an execution.
CREATE FUNCTION execution_id(key bigint, created_at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(us / 1000), 12, '0')
        || to_hex(x'7000'::int + (us % 1000 * 4096 / 1000)::int)
        || to_hex((1::bigint << 63) | key))::uuid
    FROM (SELECT (extract(epoch FROM created_at) * 1000000)::bigint AS us) AS t
$$;

CREATE VIEW all_executions WITH (security_invoker = true) AS
SELECT id, execution_id(id, created_at) AS execution_id, created_at, tenant, job_id, job_key,
    version, origin, scheduled_for, run, pool, priority,
    CASE WHEN state = 'blocked' AND reason = 'delayed' THEN 'scheduled' ELSE state END AS state,
    CASE WHEN state = 'blocked' AND reason = 'delayed' THEN NULL ELSE reason END AS reason,
    run_at, attempt, failures,
    losses, fencing_token, incarnation, started_at, NULL::timestamptz AS finished_at,
    NULL::integer AS exit_code, NULL::text AS error, NULL::bytea AS result, input,
    NULL::timestamptz AS last_scheduled_for, 1 AS instants, NULL::timestamptz AS discarded_at
FROM executions
UNION ALL
SELECT id, execution_id(id, created_at), created_at, tenant, job_id, job_key,
    version, origin, scheduled_for, run, pool, priority, state, reason, NULL, attempt, failures,
    losses, fencing_token, incarnation, started_at, finished_at,
    exit_code, error, result, input, last_scheduled_for, instants, discarded_at
FROM execution_history;
