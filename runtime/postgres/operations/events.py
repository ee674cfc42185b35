"""Tells the event log of what people changed, as rows of their tenant: row security asks for it."""


def logged(rows: str, *, kind: str, at: str, state: str = "state") -> str:
    """The INSERT that tells of `rows` (id, job_key, tenant) of one tenant, if there are any.

    `kind` and `at` are SQL expressions, `state` one over a row of `rows`.
    """
    return (
        "INSERT INTO events (at, kind, tenant, ids, job_keys, states) "
        f"SELECT {at}, {kind}, tenant, array_agg(id ORDER BY id), "
        f"array_agg(job_key ORDER BY id), array_agg({state}::text ORDER BY id) "
        f"FROM {rows} GROUP BY tenant"
    )
