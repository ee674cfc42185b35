"""The three shapes an execution could be stored in, as DDL and the four statements each lives by.

Every shape takes the same parameters in the same order, so that one driver runs all of them.
"""

import msgspec

HISTORY_DAYS = 32  # partitions each partitioned table gets: thirty past days, today and tomorrow


class Shape(msgspec.Struct, frozen=True):
    """One way to store executions: its tables, and the statements of the hot path."""

    name: str
    tables: str
    partitioned: str
    indexes: str
    load: str
    insert: str
    claim: str
    claim_limited: str
    finish: str
    lanes: str


COMMON = """
CREATE SEQUENCE tokens;
CREATE TABLE events (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq bigint GENERATED ALWAYS AS IDENTITY,
    kind text NOT NULL,
    ids bigint[] NOT NULL,
    body bytea,
    PRIMARY KEY (xid, seq)
);
CREATE TABLE limits (
    key text PRIMARY KEY,
    slots int NOT NULL,
    holders bigint[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
"""

# What a row holds while it is not final; history adds nothing, so that a move is a plain copy.
COLUMNS = """
    id bigint NOT NULL,
    execution_id uuid NOT NULL,
    job_key bigint NOT NULL,
    scheduled_for timestamptz NOT NULL,
    run_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    origin bigint NOT NULL,
    token bigint,
    node bigint,
    version int NOT NULL,
    run int NOT NULL DEFAULT 1,
    attempt int NOT NULL DEFAULT 0,
    failures int NOT NULL DEFAULT 0,
    losses int NOT NULL DEFAULT 0,
    priority smallint NOT NULL,
    holds_turn boolean NOT NULL,
    state text NOT NULL,
    tenant text NOT NULL,
    pool text NOT NULL,
    job_id text NOT NULL,
    reason text,
    limit_key text,
    input bytea,
    result bytea,
    error text
"""

HOT_OPTIONS = """(fillfactor = 50, autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 2000000000)"""

GIVEN = """unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::timestamptz[], $5::bigint[],
        $6::text[], $7::smallint[], $8::text[], $9::boolean[], $10::bytea[])
        AS g(id, execution_id, job_key, scheduled_for, origin,
             tenant, priority, limit_key, holds_turn, input)"""
_NEW_NAMES = """id, execution_id, job_key, scheduled_for, run_at, created_at, origin, version,
        priority, holds_turn, state, tenant, pool, job_id, limit_key, input"""
_NEW_VALUES = """g.id, g.execution_id, g.job_key, g.scheduled_for, g.scheduled_for, $11, g.origin,
        1, g.priority, g.holds_turn, 'scheduled', g.tenant, 'default', 'job-' || g.job_key,
        g.limit_key, g.input"""
_LOGGED = "INSERT INTO events (kind, ids, body)"
DONE = """unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::text[], $5::timestamptz[],
        $6::bytea[], $7::text[])
        AS d(id, token, scheduled_for, state, finished_at, result, error)"""

# The lanes: what no limit touches, and, apart, what waits at a limit.
_CLAIM_INDEXES = """
CREATE INDEX {t}_claim ON {t} (pool, tenant, priority, run_at, id)
    WHERE state = 'scheduled' AND limit_key IS NULL;
CREATE INDEX {t}_claim_limited ON {t} (pool, limit_key, priority, run_at, id)
    WHERE state = 'scheduled' AND limit_key IS NOT NULL;
"""
LANES = """
WITH RECURSIVE lane AS (
    (SELECT tenant, priority FROM {t}
     WHERE pool = $1 AND state = 'scheduled' AND limit_key IS NULL
     ORDER BY tenant, priority LIMIT 1)
    UNION ALL
    SELECT next.tenant, next.priority FROM lane CROSS JOIN LATERAL (
        SELECT e.tenant, e.priority FROM {t} e
        WHERE e.pool = $1 AND e.state = 'scheduled' AND e.limit_key IS NULL
          AND (e.tenant, e.priority) > (lane.tenant, lane.priority)
        ORDER BY e.tenant, e.priority LIMIT 1) AS next
) SELECT tenant, priority FROM lane
"""
_PICK = """
picked AS MATERIALIZED (
    SELECT e.{key} AS key{more} FROM unnest($2::text[], $3::smallint[], $4::int[])
        AS l(tenant, priority, budget)
    CROSS JOIN LATERAL (
        SELECT {key}{more} FROM {t}
        WHERE pool = $1 AND tenant = l.tenant AND priority = l.priority
          AND state = 'scheduled' AND limit_key IS NULL AND run_at <= $5{window}
        ORDER BY run_at, id LIMIT l.budget FOR UPDATE SKIP LOCKED) AS e
)"""
_PICK_LIMITED = """
free AS MATERIALIZED (
    SELECT key, slots - cardinality(holders) AS budget FROM limits
    WHERE key = ANY($2::text[]) ORDER BY key FOR UPDATE
),
picked AS MATERIALIZED (
    SELECT e.{key} AS key{more}, e.id AS held, l.key AS limit_key FROM free AS l
    CROSS JOIN LATERAL (
        SELECT {key2}id{more} FROM {t}
        WHERE pool = $1 AND limit_key = l.key AND state = 'scheduled' AND limit_key IS NOT NULL
          AND run_at <= $3{window}
        ORDER BY priority, run_at, id LIMIT l.budget FOR UPDATE SKIP LOCKED) AS e
),
held AS (
    UPDATE limits SET holders = holders || p.ids
    FROM (SELECT limit_key, array_agg(held) AS ids FROM picked GROUP BY 1) AS p
    WHERE limits.key = p.limit_key
)"""
_FREE = """
locked AS MATERIALIZED (
    SELECT l.key, g.ids FROM limits AS l
    JOIN (SELECT limit_key, array_agg(id) AS ids FROM gone
          WHERE limit_key IS NOT NULL GROUP BY 1) AS g ON g.limit_key = l.key
    ORDER BY l.key FOR UPDATE OF l
),
freed AS (
    UPDATE limits SET holders = ARRAY(
        SELECT h FROM unnest(limits.holders) AS h WHERE h <> ALL (locked.ids))
    FROM locked WHERE limits.key = locked.key
)"""
_TAKEN = "id, token, execution_id, job_key, version, scheduled_for, attempt, input"


def _claims(
    table: str,
    *,
    key: str,
    set_: str,
    match: str,
    more: str,
    windows: tuple[str, str],
    returning: str,
) -> tuple[str, str]:
    """The two claims of a table: by lane, and by limit."""
    tail = """,
taken AS (
    UPDATE {t} AS e SET state = 'running', token = nextval('tokens'), attempt = attempt + 1, {set_}
    {match} RETURNING {returning}
),
event AS (
    {logged} SELECT 'started', array_agg(id || ARRAY[token]), NULL FROM taken HAVING count(*) > 0
) SELECT {names} FROM taken"""
    names = ", ".join(part.strip().removeprefix("e.") for part in returning.split(","))
    tail = tail.replace("array_agg(id || ARRAY[token])", "array_agg(id) || array_agg(token)")
    fill = {
        "t": table,
        "key": key,
        "match": match,
        "more": more,
        "logged": _LOGGED,
        "returning": returning,
        "names": names,
        "key2": "ctid, " if key == "ctid" else "",
    }
    plain = ("WITH" + _PICK + tail).format(
        **fill, window=windows[0], set_=set_.format(node="$6", now="$7")
    )
    limited = ("WITH" + _PICK_LIMITED + tail).format(
        **fill, window=windows[1], set_=set_.format(node="$4", now="$5")
    )
    return plain, limited


_BY_CTID = "WHERE e.ctid = ANY (ARRAY(SELECT key FROM picked))"
_E_TAKEN = ", ".join("e." + name.strip() for name in _TAKEN.split(","))

_b_claim, _b_claim_limited = _claims(
    "executions",
    key="ctid",
    more="",
    windows=("", ""),
    match=_BY_CTID,
    set_="node = {node}, started_at = {now}",
    returning=_E_TAKEN,
)

B = Shape(
    name="b",
    tables=f"CREATE TABLE executions ({COLUMNS}) WITH {HOT_OPTIONS};"
    f"CREATE TABLE history ({COLUMNS}) PARTITION BY RANGE (scheduled_for);",
    partitioned="history",
    indexes="""
ALTER TABLE executions ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX executions_instant ON executions (job_key, scheduled_for) WHERE origin = 0;
CREATE UNIQUE INDEX executions_turn ON executions (job_key) WHERE holds_turn;
CREATE UNIQUE INDEX history_instant ON history (job_key, scheduled_for, origin);
CREATE INDEX history_id ON history (id);
CREATE INDEX history_unsuccessful ON history (state, id) WHERE state <> 'succeeded';
"""
    + _CLAIM_INDEXES.format(t="executions"),
    load="history",
    insert=f"""
WITH added AS (
    INSERT INTO executions ({_NEW_NAMES}) SELECT {_NEW_VALUES} FROM {GIVEN} RETURNING id
) {_LOGGED} SELECT 'scheduled', array_agg(id), $12::bytea FROM added""",
    claim=_b_claim,
    claim_limited=_b_claim_limited,
    finish=f"""
WITH gone AS (
    DELETE FROM executions AS e USING {DONE}
    WHERE e.id = d.id AND e.token = d.token
    RETURNING e.id, e.execution_id, e.job_key, e.scheduled_for, e.run_at, e.created_at,
        e.started_at, d.finished_at, e.origin, e.token, e.node, e.version, e.run, e.attempt,
        e.failures, e.losses, e.priority, false AS holds_turn, d.state, e.tenant, e.pool, e.job_id,
        e.reason, e.limit_key, e.input, d.result, d.error
),
kept AS (INSERT INTO history SELECT * FROM gone),
{_FREE},
event AS ({_LOGGED} SELECT 'finished', array_agg(id), $8::bytea FROM gone)
SELECT id FROM gone""",
    lanes=LANES.format(t="executions"),
)

# (a): the window on scheduled_for is what lets a claim look into three partitions, not thirty-two.
_A_WINDOW = (
    "{p}scheduled_for > {now}::timestamptz - interval '1 day' AND "
    "{p}scheduled_for <= {now}::timestamptz + interval '1 day'"
)


def _window(param: str, prefix: str = "") -> str:
    return " AND " + _A_WINDOW.format(now=param, p=prefix)


def _a_claims() -> tuple[str, str]:
    match = "FROM picked AS p WHERE e.id = p.key AND e.scheduled_for = p.scheduled_for"
    plain, limited = _claims(
        "executions",
        key="id",
        more=", scheduled_for",
        windows=(_window("$5"), _window("$3")),
        match=match + "@window@",
        set_="node = {node}, started_at = {now}",
        returning=_E_TAKEN,
    )
    return (
        plain.replace("@window@", _window("$5", "e.")),
        limited.replace("@window@", _window("$3", "e.")).replace("SELECT id, id,", "SELECT id,"),
    )


_a_claim, _a_claim_limited = _a_claims()

A = Shape(
    name="a",
    tables=f"CREATE TABLE executions ({COLUMNS}) PARTITION BY RANGE (scheduled_for);"
    "CREATE TABLE turns (job_key bigint PRIMARY KEY, id bigint NOT NULL);",
    partitioned="executions",
    indexes="""
CREATE UNIQUE INDEX executions_instant ON executions (job_key, scheduled_for, origin);
CREATE INDEX executions_id ON executions (id);
CREATE INDEX executions_unsuccessful ON executions (state, id)
    WHERE state IN ('dead', 'cancelled', 'skipped');
"""
    + _CLAIM_INDEXES.format(t="executions"),
    load="executions",
    insert=f"""
WITH added AS (
    INSERT INTO executions ({_NEW_NAMES}) SELECT {_NEW_VALUES} FROM {GIVEN}
    RETURNING id, job_key, holds_turn
),
turn AS (INSERT INTO turns SELECT job_key, id FROM added WHERE holds_turn)
{_LOGGED} SELECT 'scheduled', array_agg(id), $12::bytea FROM added""",
    claim=_a_claim,
    claim_limited=_a_claim_limited,
    finish=f"""
WITH gone AS (
    UPDATE executions AS e SET state = d.state, finished_at = d.finished_at, result = d.result,
        error = d.error, holds_turn = false FROM {DONE}
    WHERE e.id = d.id AND e.scheduled_for = d.scheduled_for AND e.token = d.token
      AND e.scheduled_for >= ($3::timestamptz[])[1] - interval '1 day'
      AND e.scheduled_for <= ($3::timestamptz[])[1] + interval '1 day'
    RETURNING e.id, e.job_key, e.limit_key
),
turn AS (DELETE FROM turns USING gone WHERE turns.job_key = gone.job_key AND turns.id = gone.id),
{_FREE},
event AS ({_LOGGED} SELECT 'finished', array_agg(id), $8::bytea FROM gone)
SELECT id FROM gone""",
    lanes=LANES.format(t="executions"),
)

# (c): the queue row carries what a worker needs, so that a claim never touches the wide row.
_c_claim, _c_claim_limited = _claims(
    "queue",
    key="ctid",
    more="",
    windows=("", ""),
    match=_BY_CTID,
    set_="node = {node}, started_at = {now}",
    returning=_E_TAKEN,
)

C = Shape(
    name="c",
    tables=f"""CREATE TABLE executions ({COLUMNS}) PARTITION BY RANGE (scheduled_for)
    ;
CREATE TABLE queue (
    id bigint NOT NULL, execution_id uuid NOT NULL, job_key bigint NOT NULL,
    scheduled_for timestamptz NOT NULL, run_at timestamptz NOT NULL, started_at timestamptz,
    token bigint, node bigint, version int NOT NULL, attempt int NOT NULL DEFAULT 0,
    priority smallint NOT NULL, holds_turn boolean NOT NULL, state text NOT NULL,
    tenant text NOT NULL, pool text NOT NULL, limit_key text, input bytea
) WITH {HOT_OPTIONS};""",
    partitioned="executions",
    indexes="""
ALTER TABLE queue ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX queue_turn ON queue (job_key) WHERE holds_turn;
CREATE UNIQUE INDEX executions_instant ON executions (job_key, scheduled_for, origin);
CREATE INDEX executions_id ON executions (id);
CREATE INDEX executions_unsuccessful ON executions (state, id)
    WHERE state IN ('dead', 'cancelled', 'skipped');
"""
    + _CLAIM_INDEXES.format(t="queue"),
    load="executions",
    insert=f"""
WITH added AS (
    INSERT INTO executions ({_NEW_NAMES}) SELECT {_NEW_VALUES} FROM {GIVEN} RETURNING *
),
queued AS (
    INSERT INTO queue SELECT id, execution_id, job_key, scheduled_for, run_at, NULL, NULL, NULL,
        version, 0, priority, holds_turn, state, tenant, pool, limit_key, input FROM added
)
{_LOGGED} SELECT 'scheduled', array_agg(id), $12::bytea FROM added""",
    claim=_c_claim,
    claim_limited=_c_claim_limited,
    finish=f"""
WITH gone AS (
    DELETE FROM queue AS e USING {DONE} WHERE e.id = d.id AND e.token = d.token
    RETURNING e.id, e.scheduled_for, e.started_at, d.finished_at, e.token, e.node, e.attempt,
        d.state, e.limit_key, d.result, d.error
),
kept AS (
    UPDATE executions AS w SET state = g.state, started_at = g.started_at, token = g.token,
        finished_at = g.finished_at, node = g.node, attempt = g.attempt, result = g.result,
        error = g.error, holds_turn = false
    FROM gone AS g WHERE w.id = g.id AND w.scheduled_for = g.scheduled_for
      AND w.scheduled_for >= ($3::timestamptz[])[1] - interval '1 day'
      AND w.scheduled_for <= ($3::timestamptz[])[1] + interval '1 day'
),
{_FREE},
event AS ({_LOGGED} SELECT 'finished', array_agg(id), $8::bytea FROM gone)
SELECT id FROM gone""",
    lanes=LANES.format(t="queue"),
)

SHAPES = {shape.name: shape for shape in (A, B, C)}

# (b) keeps an instant unique over both tables: the hot index sees what is not final, this the rest.
GUARD = """
CREATE FUNCTION refuse_known_instant() RETURNS trigger LANGUAGE plpgsql
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM added AS a CROSS JOIN LATERAL (
            SELECT FROM history AS h WHERE a.origin = 0 AND h.origin = 0
            AND h.job_key = a.job_key AND h.scheduled_for = a.scheduled_for LIMIT 1) AS known) THEN
        RAISE unique_violation USING MESSAGE = 'this scheduled instant has an execution already',
            CONSTRAINT = 'executions_instant';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER known_instant AFTER INSERT ON executions
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION refuse_known_instant();
"""
