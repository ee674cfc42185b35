-- DAGs: what they are, how far their runs have come, and what has ended since anybody looked.
-- A DAG is a job; each of its tasks is a hidden job named `dag_id/task_id`. A run is named by the
-- execution of its DAG, which a DagActor holds while the run goes on.

-- Whoever lists jobs does not see them.
ALTER TABLE jobs ADD COLUMN hidden boolean NOT NULL
    GENERATED ALWAYS AS (strpos(job_id, '/') > 0) STORED;
DROP INDEX jobs_source;
CREATE INDEX jobs_source ON jobs (tenant, source) WHERE deleted_at IS NULL AND NOT hidden;
DROP INDEX jobs_newest;
CREATE INDEX jobs_newest ON jobs (tenant, job_key) WHERE deleted_at IS NULL AND NOT hidden;

CREATE TABLE dags (
    job_key bigint PRIMARY KEY REFERENCES jobs,
    tenant text COLLATE "C" NOT NULL,
    dag_id text COLLATE "C" NOT NULL,
    version integer NOT NULL                      -- the one in force; a run keeps its own
);
CREATE INDEX dags_name ON dags (tenant, dag_id);
CREATE INDEX dags_newest ON dags (tenant, job_key);

CREATE TABLE dag_versions (
    job_key bigint NOT NULL REFERENCES jobs,
    version integer NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    on_failure text COLLATE "C" NOT NULL
        CHECK (on_failure IN ('fail_fast', 'fail_downstream', 'continue')),
    tasks integer NOT NULL,                       -- how many, handlers among them
    in_force_at timestamptz NOT NULL,
    PRIMARY KEY (job_key, version)
);

-- A version's tasks, numbered in topological order from 0; handlers come last.
CREATE TABLE dag_version_tasks (
    job_key bigint NOT NULL,                      -- of the DAG
    version integer NOT NULL,
    number integer NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    task_key bigint NOT NULL REFERENCES jobs,     -- of its hidden job, in the same version
    parents integer NOT NULL,
    trigger text COLLATE "C" NOT NULL CHECK (trigger IN ('all_succeeded', 'all_done',
        'one_succeeded', 'one_failed', 'none_failed', 'always')),
    role text COLLATE "C" NOT NULL CHECK (role IN ('task', 'on_success', 'on_failure', 'finally')),
    spec jsonb NOT NULL,                          -- protocols.dags.DagTaskSpec
    PRIMARY KEY (job_key, version, number),
    FOREIGN KEY (job_key, version) REFERENCES dag_versions
);

-- Tasks that are runs of other DAGs.
CREATE INDEX dag_version_tasks_sub ON dag_version_tasks (tenant, job_key, version)
    WHERE jsonb_exists(spec, 'dag');

CREATE TABLE task_dependencies (
    job_key bigint NOT NULL,                      -- of the DAG
    version integer NOT NULL,
    parent integer NOT NULL,                      -- numbers of tasks
    child integer NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    PRIMARY KEY (job_key, version, parent, child),
    FOREIGN KEY (job_key, version) REFERENCES dag_versions
);
CREATE INDEX task_dependencies_child ON task_dependencies (job_key, version, child);

CREATE TABLE dag_runs (
    run bigint PRIMARY KEY,                       -- the id of the DAG's execution,
    root_run integer NOT NULL DEFAULT 1,          -- and which `run` of that this stands at
    tenant text COLLATE "C" NOT NULL,
    job_key bigint NOT NULL REFERENCES jobs,
    version integer NOT NULL,
    dag_id text COLLATE "C" NOT NULL,
    scheduled_for timestamptz NOT NULL,
    state text COLLATE "C" NOT NULL
        CHECK (state IN ('running', 'paused', 'succeeded', 'failed', 'cancelled')),
    reason text COLLATE "C",
    open integer NOT NULL,                        -- tasks that are not final, handlers not counted
    failed integer NOT NULL DEFAULT 0,            -- tasks that failed
    handlers text COLLATE "C" NOT NULL DEFAULT 'none'
        CHECK (handlers IN ('none', 'running', 'done')),
    cancelling boolean NOT NULL DEFAULT false,
    input bytea,                                  -- JSON
    parent_run bigint,                            -- of a sub-DAG: the task that waits for it
    parent_task integer,
    parent_item integer,
    started_at timestamptz NOT NULL,
    deadline timestamptz,
    finished_at timestamptz
) WITH (fillfactor = 70);
CREATE INDEX dag_runs_newest ON dag_runs (tenant, job_key, run);
CREATE INDEX dag_runs_all ON dag_runs (tenant, run);
CREATE INDEX dag_runs_open ON dag_runs (run) WHERE finished_at IS NULL;
CREATE INDEX dag_runs_parent ON dag_runs (parent_run) WHERE parent_run IS NOT NULL;
CREATE INDEX dag_runs_finished ON dag_runs (finished_at) WHERE finished_at IS NOT NULL;

-- One row a task of a run; of a mapped task one more for each item, the task itself being item -1.
CREATE TABLE dag_tasks (
    run bigint NOT NULL REFERENCES dag_runs ON DELETE CASCADE,
    number integer NOT NULL,
    item integer NOT NULL DEFAULT -1,
    tenant text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('blocked', 'waiting', 'scheduled', 'running',
        'succeeded', 'failed', 'skipped', 'cancelled')),
    reason text COLLATE "C",                      -- upstream_failed | condition | fail_fast | ...
    cause text COLLATE "C",                       -- the task whose failure this follows from
    pending integer NOT NULL DEFAULT 0,           -- parents, or items, that are not final
    succeeded integer NOT NULL DEFAULT 0,         -- of them, those that did
    failed integer NOT NULL DEFAULT 0,
    skipped integer NOT NULL DEFAULT 0,           -- or were cancelled
    execution bigint,                             -- the last one
    executions integer NOT NULL DEFAULT 0,        -- how many there were: retries by hand count
    wake_at timestamptz,                          -- of what waits: for an instant, or a time-out
    started_at timestamptz,
    finished_at timestamptz,
    result bytea,                                 -- JSON, bounded
    marked_by text COLLATE "C",                   -- who set its state by hand
    PRIMARY KEY (run, number, item)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX dag_tasks_execution ON dag_tasks (execution) WHERE execution IS NOT NULL;
-- What waits. No index names a task's state, so that an end changes its row in place.
CREATE INDEX dag_tasks_wake ON dag_tasks (wake_at) WHERE wake_at IS NOT NULL;

CREATE TABLE dag_signals (
    run bigint NOT NULL REFERENCES dag_runs ON DELETE CASCADE,
    name text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    payload bytea,                                -- JSON
    who text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (run, name)
);

-- Executions of tasks that have ended and that no DagActor has taken account of yet. Written by
-- the statement that ends them, whichever it is, so that no end goes unseen.
CREATE TABLE dag_ended (
    execution bigint PRIMARY KEY,                 -- below 0: look at the run of that number
    tenant text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    reason text COLLATE "C",
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    result bytea
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0);

CREATE FUNCTION tell_of_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO dag_ended (execution, tenant, state, reason, started_at, finished_at, result)
    VALUES (NEW.id, NEW.tenant, NEW.state, NEW.reason, NEW.started_at, NEW.finished_at, NEW.result)
    ON CONFLICT (execution) DO UPDATE SET state = excluded.state, reason = excluded.reason,
        started_at = excluded.started_at, finished_at = excluded.finished_at,
        result = excluded.result;
    RETURN NULL;
END $$;
-- Only what is a DAG's task calls the function, no other job having a slash in its id, or what is a
-- run's own execution, which another run may wait for.
CREATE TRIGGER execution_history_of_task AFTER INSERT ON execution_history
    FOR EACH ROW WHEN (strpos(NEW.job_id, '/') > 0 OR NEW.pool = '@dags')
    EXECUTE FUNCTION tell_of_task();

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['dags', 'dag_versions', 'dag_version_tasks', 'task_dependencies',
        'dag_runs', 'dag_tasks', 'dag_signals', 'dag_ended'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO tickwright_node', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO tickwright_api', name);
        EXECUTE format('CREATE POLICY node ON %I TO tickwright_node USING (true) WITH CHECK (true)',
            name);
        EXECUTE format($p$CREATE POLICY tenant ON %I TO tickwright_api
            USING (tenant = current_setting('tickwright.tenant', true))
            WITH CHECK (tenant = current_setting('tickwright.tenant', true))$p$, name);
    END LOOP;
END $$;
