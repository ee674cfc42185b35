-- Roots of runs within runs, found by the run they are within: its holder may have no room for
-- others, and these have to come before it can end.
ALTER TABLE executions ADD COLUMN within bigint;   -- the run whose task this execution is the run of
CREATE INDEX executions_within ON executions (within, id) WHERE within IS NOT NULL;
UPDATE executions e SET within = k.run FROM dag_tasks k
WHERE e.pool = '@dags' AND k.execution = e.id;
