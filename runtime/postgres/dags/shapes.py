"""Reads versions of DAGs, which never change, and keeps those that were used last."""

from collections import OrderedDict
from typing import Final

import msgspec

from actors.dag.shape import Shape, TaskShape
from protocols.dags import DagTaskSpec
from runtime.postgres.pool import Session

_KEPT_TASKS: Final = 200_000
"""Of all versions kept; one is kept whatever its size."""

# dag_version_tasks_pkey.
_TASKS: Final = """
SELECT t.number, t.task_id, t.task_key, t.trigger, t.role, t.spec::text AS spec, v.on_failure
FROM (
    SELECT * FROM dag_versions v WHERE v.job_key = $1 AND v.version = $2 LIMIT 1
) AS v
CROSS JOIN LATERAL (
    SELECT * FROM dag_version_tasks t
    WHERE t.job_key = v.job_key AND t.version = v.version
    ORDER BY t.number
) AS t
ORDER BY t.number
"""

# task_dependencies_pkey.
_EDGES: Final = """
SELECT parent, child FROM task_dependencies
WHERE job_key = $1 AND version = $2
ORDER BY parent, child
"""

_decode: Final = msgspec.json.Decoder(DagTaskSpec).decode


class Shapes:
    """Versions by (job_key, version)."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], Shape] = OrderedDict()
        self._size = 0

    async def get(self, session: Session, job_key: int, version: int) -> Shape:
        """The version; read once."""
        key = (job_key, version)
        shape = self._kept.get(key)
        if shape is not None:
            self._kept.move_to_end(key)
            return shape
        shape = await read_shape(session, job_key, version)
        if key not in self._kept:
            self._kept[key] = shape
            self._size += len(shape.tasks)
        while self._size > _KEPT_TASKS and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped.tasks)
        return shape


async def read_shape(session: Session, job_key: int, version: int) -> Shape:
    """One version, from its rows."""
    rows = await session.fetch(_TASKS, job_key, version)
    edges = await session.fetch(_EDGES, job_key, version)
    return Shape(
        on_failure=rows[0]["on_failure"] if rows else "fail_downstream",
        tasks=[
            TaskShape(
                number=row["number"],
                task_id=row["task_id"],
                key=row["task_key"],
                trigger=row["trigger"],
                role=row["role"],
                spec=_decode(row["spec"]),
            )
            for row in rows
        ],
        edges=[(row["parent"], row["child"]) for row in edges],
    )
