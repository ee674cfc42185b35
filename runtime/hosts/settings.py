"""What a node's settings say about running tasks."""

import msgspec

from runtime.hosts.output import OUTPUT_BYTES_MAX


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and places, the same for every pool of a node; durations in seconds."""

    cwd: str
    """Absolute: the folder that commands run in, and the first that callables are imported from."""
    python_path: tuple[str, ...] = ()
    """The node's own PYTHONPATH, after `cwd`."""
    url: str = "http://127.0.0.1:8700"
    """Where commands such as `runtime checkpoint` reach this node."""
    kill_grace_s: float = 5.0
    """Between asking an attempt to end and killing it."""
    output_bytes_max: int = OUTPUT_BYTES_MAX
    result_bytes_max: int = 256 * 1024
    held_s: float = 1.0
    """A task that holds its host's loop for longer is named."""
    stall_s: float = 0.25
    """A host that has begun nothing of what it was fed for this long gets no more."""
    idle_processes_max: int = 4
    idle_process_s: float = 60.0
    http_body_bytes_max: int = 64 * 1024
