-- What is to run, and who runs it: the house, its nodes, jobs with their versions and schedules.
-- In every file: rows are keyed by bigint; tenant is a column of every table that is not the
-- house's own; text that is compared is COLLATE "C".

-- The roles that 0004 grants to; they are the server's, so another database may have them already.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['tickwright_node', 'tickwright_api'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;                             -- another database of this server was quicker
            END;
        END IF;
        -- The owner acts as them where nodes connect by its name (`database.url`).
        IF NOT pg_has_role(current_user, name, 'MEMBER') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', name);
        END IF;
    END LOOP;
END $$;

-- The house: one row of what holds for all nodes ------------------------------------------------

CREATE TABLE house (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    paused boolean NOT NULL DEFAULT false,
    paused_reason text,
    tzdata_version text
);
INSERT INTO house DEFAULT VALUES;

-- One row per group of shards: who may fire, by which epoch. A leader's write locks its row
-- FOR SHARE with its epoch, so that nothing of an older epoch commits once a newer one has.
CREATE TABLE leaderships (
    number smallint PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    paused boolean NOT NULL DEFAULT false,        -- the house's, here because a fire locks this row
    incarnation bigint,
    taken_at timestamptz
);
INSERT INTO leaderships (number) VALUES (0);

CREATE TABLE nodes (
    incarnation bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL DEFAULT 'up'
        CHECK (state IN ('up', 'draining', 'stopped', 'dead')),
    url text NOT NULL,
    pid integer NOT NULL,
    host text NOT NULL,
    version text NOT NULL,
    level smallint NOT NULL DEFAULT 1,
    pools jsonb NOT NULL DEFAULT '{}',            -- name: {"slots": n, "running": n}
    leads jsonb NOT NULL DEFAULT '{}',            -- leadership: epoch
    clock_offset_s double precision NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL,
    last_beat_at timestamptz NOT NULL,
    ended_at timestamptz                          -- set once nothing runs in its name any more
) WITH (fillfactor = 50);
-- Nodes that live, and those that ended with executions still in their name. A beat changes no
-- column that an index names.
CREATE INDEX nodes_open ON nodes (incarnation) WHERE ended_at IS NULL;

-- What is to run --------------------------------------------------------------------------------

CREATE TABLE sources (
    tenant text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    content_hash bytea NOT NULL,
    applied_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, source)
);

CREATE TABLE calendars (
    tenant text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    spec jsonb NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE jobs (
    job_key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    job_id text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    version integer NOT NULL,                     -- the one in force
    shard smallint NOT NULL CHECK (shard BETWEEN 0 AND 255),
    enabled boolean NOT NULL DEFAULT true,
    paused boolean NOT NULL DEFAULT false,
    paused_reason text,
    tags text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz                        -- history outlives its job
);
CREATE UNIQUE INDEX jobs_name ON jobs (tenant, job_id) WHERE deleted_at IS NULL;
CREATE INDEX jobs_source ON jobs (tenant, source) WHERE deleted_at IS NULL;
CREATE INDEX jobs_newest ON jobs (tenant, job_key) WHERE deleted_at IS NULL;
CREATE INDEX jobs_deleted ON jobs (tenant, job_id) WHERE deleted_at IS NOT NULL;

-- Beside jobs.tags, since row security lets no index on an array be used (`@>` may leak).
CREATE TABLE job_tags (
    tenant text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    job_key bigint NOT NULL REFERENCES jobs,
    PRIMARY KEY (tenant, tag, job_key)
);
CREATE INDEX job_tags_job ON job_tags (job_key);

CREATE TABLE job_versions (
    tenant text COLLATE "C" NOT NULL,
    job_key bigint NOT NULL REFERENCES jobs,
    version integer NOT NULL,
    spec jsonb NOT NULL,                          -- protocols.jobs.JobSpec
    needs smallint NOT NULL DEFAULT 1,            -- the protocol level it takes to run it
    in_force_at timestamptz NOT NULL,
    -- What every execution takes from its version, so that no hot statement opens the JSON. The
    -- defaults are those of protocols.jobs.JobSpec, which leaves out what has its default.
    job_id text COLLATE "C" NOT NULL GENERATED ALWAYS AS (spec ->> 'job_id') STORED,
    pool text COLLATE "C" NOT NULL
        GENERATED ALWAYS AS (coalesce(spec ->> 'pool', 'default')) STORED,
    priority smallint NOT NULL
        GENERATED ALWAYS AS (coalesce((spec ->> 'priority')::smallint, 2)) STORED,
    overlap text COLLATE "C" NOT NULL
        GENERATED ALWAYS AS (coalesce(spec ->> 'overlap', 'skip')) STORED,
    expires_s double precision
        GENERATED ALWAYS AS ((spec ->> 'expires_s')::double precision) STORED,
    at_most_once boolean NOT NULL
        GENERATED ALWAYS AS (coalesce(spec ->> 'guarantee', '') = 'at_most_once') STORED,
    max_lost smallint NOT NULL
        GENERATED ALWAYS AS (coalesce((spec -> 'retry' ->> 'max_lost')::smallint, 5)) STORED,
    concurrency_limit integer
        GENERATED ALWAYS AS ((spec ->> 'concurrency_limit')::integer) STORED,
    limit_key text COLLATE "C" GENERATED ALWAYS AS (
        CASE WHEN spec ->> 'concurrency_limit' IS NOT NULL THEN 'job:' || job_key::text END
    ) STORED,
    dependent boolean NOT NULL GENERATED ALWAYS AS (
        jsonb_array_length(coalesce(spec -> 'dependencies', '[]')) > 0
    ) STORED,
    PRIMARY KEY (job_key, version)
);

-- The narrow row that moves at every fire.
CREATE TABLE schedules (
    job_key bigint PRIMARY KEY REFERENCES jobs,
    tenant text COLLATE "C" NOT NULL,
    shard smallint NOT NULL,
    version integer NOT NULL,
    cursor timestamptz NOT NULL,                  -- instants up to here are decided
    next_fire_at timestamptz,                     -- null: never, or (after_s) not before a finish
    catchup_from timestamptz,                     -- missed instants still to be decided, if any:
    catchup_until timestamptz,                    -- (catchup_from, catchup_until]
    anchor timestamptz NOT NULL,
    after_s double precision,                     -- of an @after schedule: seconds after a finish
    paused boolean NOT NULL DEFAULT false,
    CHECK ((catchup_from IS NULL) = (catchup_until IS NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX schedules_next ON schedules (next_fire_at, shard) WHERE next_fire_at IS NOT NULL;
CREATE INDEX schedules_after ON schedules (job_key)
    WHERE after_s IS NOT NULL AND next_fire_at IS NULL;
CREATE INDEX schedules_catchup ON schedules (job_key) WHERE catchup_from IS NOT NULL;

CREATE TABLE job_dependencies (
    tenant text COLLATE "C" NOT NULL,
    parent_key bigint NOT NULL REFERENCES jobs,
    child_key bigint NOT NULL REFERENCES jobs,
    met_at timestamptz,                           -- of a child without a schedule: when the parent
    PRIMARY KEY (parent_key, child_key)           -- succeeded, null if not since its last run
);
CREATE INDEX job_dependencies_child ON job_dependencies (child_key);
CREATE INDEX job_dependencies_met ON job_dependencies (child_key) WHERE met_at IS NOT NULL;

-- `on:` of the version in force, one row a trigger.
CREATE TABLE job_triggers (
    tenant text COLLATE "C" NOT NULL,
    job_key bigint NOT NULL REFERENCES jobs,
    number smallint NOT NULL,
    event text COLLATE "C",
    parent_key bigint REFERENCES jobs,
    state text COLLATE "C",
    filter jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (job_key, number),
    CHECK ((event IS NULL) <> (parent_key IS NULL))
);
CREATE INDEX job_triggers_event ON job_triggers (tenant, event) WHERE event IS NOT NULL;
CREATE INDEX job_triggers_parent ON job_triggers (parent_key) WHERE parent_key IS NOT NULL;
