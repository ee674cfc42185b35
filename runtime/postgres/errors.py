"""What PostgreSQL and the wire can say, sorted into what a caller must do about it."""

from typing import Final

import asyncpg

from protocols.errors import TickwrightError, UnavailableError

_AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, crashed, starting up, statement timeout
    asyncpg.InsufficientResourcesError,  # connections, memory, disk
    asyncpg.ReadOnlySQLTransactionError,  # a standby: another server is the primary now
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresSystemError,
    OSError,
    TimeoutError,
)
SAID: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
"""All that a statement or a connection may raise, whoever is to blame."""
_REFUSALS: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidParameterValueError,  # `role "tickwright_node" does not exist`
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ClientConfigurationError,  # `database.url` is no URL of a database
)
# asyncpg tells of its own closed sessions by one class with a message; a wrong number of
# arguments, which is our bug, is of that class too.
_CLOSED: Final = ("closed", "closing", "in progress", "released")


_RACES: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class DatabaseRefusedError(TickwrightError):
    """The database answers and will not have us: waiting does not mend it."""

    code = "database_refused"
    status = 503


def raced(error: BaseException) -> bool:
    """Whether another was quicker: nothing was changed, and the same may be run again at once.

    A row that had chosen the default partition when its day was attached is refused by that
    partition's constraint, which has no name; the next run finds the day.
    """
    return isinstance(error, _RACES) or (
        isinstance(error, asyncpg.CheckViolationError)
        and not constraint_of(error)
        and str(getattr(error, "table_name", None) or "").endswith("_other")
    )


def unavailable(error: BaseException) -> UnavailableError | None:
    """The error to raise in place of `error` if the database is away; None for anything else."""
    away = isinstance(error, _AWAY) or (
        isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError)
        and not isinstance(error, asyncpg.DataError)
        and any(word in str(error) for word in _CLOSED)
    )
    if not away:
        return None
    late = isinstance(error, TimeoutError)
    said = "no answer in time" if late else str(error) or type(error).__name__
    return UnavailableError(f"the database cannot be reached now: {said}")


def refusal(error: BaseException) -> DatabaseRefusedError | None:
    """The error to raise in place of `error` if a connection was refused for good."""
    if not isinstance(error, _REFUSALS):
        return None
    hint = (
        "run `runtime migrate` first"
        if isinstance(error, asyncpg.InvalidParameterValueError)
        else "check database.url and what its user may do"
    )
    return DatabaseRefusedError(f"the database refuses the connection: {error}; {hint}")


def constraint_of(error: asyncpg.PostgresError) -> str:
    """The name of the constraint or unique index that refused, or an empty string."""
    return str(getattr(error, "constraint_name", None) or "")
