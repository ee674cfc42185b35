"""Errors with a code: what the store, the API and the commands say when a thing cannot be done.

Each is one sentence with the way out. `code` is stable and part of the API's problem details.
"""

from datetime import datetime
from typing import ClassVar

import msgspec


class TickwrightError(Exception):
    """The base of every error that a user may be told."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    """The HTTP status that the API answers with."""


class NotFoundError(TickwrightError):
    """What was named does not exist."""

    code = "not_found"
    status = 404


class ConflictError(TickwrightError):
    """The thing is in a state that forbids this (another source's job, a final execution)."""

    code = "conflict"
    status = 409


class PreconditionError(TickwrightError):
    """`If-Match` names another version than the one in force."""

    code = "precondition_failed"
    status = 412


class KeyReusedError(TickwrightError):
    """A known idempotency key came with another body."""

    code = "idempotency_key_reused"
    status = 422


class UnavailableError(TickwrightError):
    """The database cannot be reached now; nothing was acknowledged."""

    code = "unavailable"
    status = 503


class NameHeldError(TickwrightError):
    """A node of that name lives, by the books: which incarnation, where, and its last beat."""

    code = "name_held"
    status = 409

    def __init__(
        self, name: str, *, incarnation: int, pid: int, host: str, last_beat_at: datetime
    ) -> None:
        super().__init__(
            f"the name {name} is held by the node with pid {pid} on {host}, incarnation "
            f"{incarnation}: stop it first, or give this one another name"
        )
        self.incarnation = incarnation
        self.last_beat_at = last_beat_at


class FencedError(TickwrightError):
    """A leader's write carried an epoch that is no longer the shard's."""

    code = "fenced"
    status = 409


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing wrong in what a user gave: where (keys and indices), and why, in one sentence."""

    path: tuple[str | int, ...]
    message: str
    of_key: bool = False
    """Whether it is the key itself that is wrong, such as an unknown field, not its value."""

    @property
    def pointer(self) -> str:
        """The place as a JSON pointer (RFC 6901)."""
        parts = (str(p).replace("~", "~0").replace("/", "~1") for p in self.path)
        return "".join(f"/{part}" for part in parts)


class InvalidError(TickwrightError):
    """What was given is wrong; every error in it is told at once, and nothing was changed."""

    code = "invalid"
    status = 422

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{p.pointer or '/'}: {p.message}" for p in problems))
        self.problems = problems
