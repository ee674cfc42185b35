-- What follows from what happened: who has read the event log to where, and which parents of a
-- job without a schedule have succeeded since its last run.

CREATE TABLE event_readers (
    name text COLLATE "C" PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT '0',
    number bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO event_readers (name) VALUES ('triggers'), ('folds');

ALTER TABLE job_dependencies ADD COLUMN met_at timestamptz;   -- null: not since its last run
CREATE INDEX job_dependencies_met ON job_dependencies (child_key) WHERE met_at IS NOT NULL;

-- Nodes that live, and those that ended with executions still in their name. A beat changes no
-- column that an index names.
DROP INDEX nodes_alive;
CREATE INDEX nodes_open ON nodes (incarnation) WHERE ended_at IS NULL;
ALTER TABLE nodes SET (fillfactor = 50);

CREATE INDEX once_keys_expiry ON once_keys (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX once_keys_open ON once_keys (execution) WHERE expires_at IS NULL;
CREATE INDEX checkpoints_saved ON checkpoints (saved_at) WHERE execution <> 0;

-- Runs of skipped instants are looked for by their jobs.
CREATE INDEX execution_history_skipped ON execution_history (job_key) WHERE state = 'skipped';

GRANT SELECT, UPDATE ON event_readers TO tickwright_node;
GRANT SELECT ON event_readers TO tickwright_api;
