"""A task's environment: an allow-list, its own `env`, its `RUNTIME_` values, and nothing else."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from protocols.instants import from_epoch_ns, iso
from protocols.ports.executor import Given

ALLOWED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")
"""What a task sees of the node's own environment; PATH with the node's interpreter first."""

TASK_VARIABLES = frozenset(
    {
        "RUNTIME_EXECUTION_ID",
        "RUNTIME_JOB_ID",
        "RUNTIME_SCHEDULED_FOR",
        "RUNTIME_ATTEMPT",
        "RUNTIME_FENCING_TOKEN",
        "RUNTIME_INPUT",
        "RUNTIME_INPUT_FILE",
        "RUNTIME_CHECKPOINT",
        "RUNTIME_CHECKPOINT_FILE",
        "RUNTIME_DAG_RUN_ID",
        "RUNTIME_TASK_ID",
        "RUNTIME_ITEM",
        "RUNTIME_ITEM_FILE",
        "RUNTIME_TENANT",
        "RUNTIME_URL",
        "RUNTIME_GUARDIAN",
        "RUNTIME_HOST",
    }
)
"""Variables that a task's environment holds: no settings, should a task start a node."""

VARIABLE_BYTES_MAX = 100_000
"""Linux refuses to start a process with a string over 128 KiB in its environment; what is larger
goes into a file, and `RUNTIME_INPUT_FILE` (or `RUNTIME_CHECKPOINT_FILE`) names it instead."""


def base_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The allow-list, taken from the node's environment."""
    source = os.environ if environ is None else environ
    kept = {name: source[name] for name in ALLOWED if name in source}
    bin_dir = str(Path(sys.executable).parent)
    parts = [part for part in kept.get("PATH", os.defpath).split(os.pathsep) if part != bin_dir]
    kept["PATH"] = os.pathsep.join([bin_dir, *parts])
    return kept


def node_python_path(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The folders of the node's own PYTHONPATH: tasks find there what the node would."""
    source = os.environ if environ is None else environ
    return tuple(filter(None, source.get("PYTHONPATH", "").split(os.pathsep)))


def identity(execution_id: str, token: int) -> dict[str, str]:
    """What names one attempt among all processes of the machine: tokens are never repeated."""
    return {"RUNTIME_EXECUTION_ID": execution_id, "RUNTIME_FENCING_TOKEN": str(token)}


def task_values(
    *,
    execution_id: str,
    token: int,
    tenant: str,
    job_id: str,
    attempt: int,
    scheduled_for_ns: int,
    url: str,
    given: bytes | None,
    checkpoint: bytes | None,
    dag: Given | None = None,
) -> tuple[dict[str, str], dict[str, bytes]]:
    """An attempt's `RUNTIME_` variables, and what is too large to be one.

    Returns:
        Variables; and contents for files, by the name of the variable that is to point to each.

    Raises:
        ValueError: what a command's text refers to does not fit into a variable; or the input is
            not UTF-8.
    """
    values = {
        **identity(execution_id, token),
        "RUNTIME_JOB_ID": job_id,
        "RUNTIME_SCHEDULED_FOR": iso(from_epoch_ns(scheduled_for_ns)),
        "RUNTIME_ATTEMPT": str(attempt),
        "RUNTIME_TENANT": tenant,
        "RUNTIME_URL": url,
    }
    contents = [("RUNTIME_INPUT", given), ("RUNTIME_CHECKPOINT", checkpoint)]
    if dag is not None:
        values |= _of_dag(dag)
        contents.append(("RUNTIME_ITEM", dag.item))
    spill = {}
    for name, value in contents:
        if value is None:
            continue
        if len(value) > VARIABLE_BYTES_MAX:
            spill[f"{name}_FILE"] = value
        else:
            values[name] = value.decode()
    return values, spill


def _of_dag(dag: Given) -> dict[str, str]:
    values = {"RUNTIME_DAG_RUN_ID": dag.run_id, "RUNTIME_TASK_ID": dag.task_id}
    for number, value in enumerate(dag.refs):
        if "\0" in value:
            raise ValueError("a value that its command refers to holds a NUL character")
        if len(value.encode()) > VARIABLE_BYTES_MAX:
            raise ValueError(
                f"a value that its command refers to has more than {VARIABLE_BYTES_MAX:,} bytes: "
                "read RUNTIME_INPUT, or hand it over by a file"
            )
        values[f"RUNTIME_REF_{number}"] = value
    return values
