"""A read does not wait for a database that has stopped to answer: it says so within seconds.

A slow answer is not taken for none: what tells them apart is the node's own question to the
database, asked each second.
"""

from collections.abc import Awaitable
from typing import Final, TypeVar

import anyio

from protocols.errors import UnavailableError
from runtime.health import Health, Trouble

Answer = TypeVar("Answer")

READ_WITHIN_S: Final = 5.0
"""How long a read waits before it asks whether there is anybody to wait for."""
_LOOK_S: Final = 0.25
_PART: Final = "database"


async def answered_or_away(doing: Awaitable[Answer], health: Health) -> Answer:
    """What `doing` answers, unless the database is away by then.

    Raises:
        UnavailableError: it is; `doing` is cancelled.
    """
    answers: list[Answer] = []
    errors: list[Exception] = []
    away: Trouble | None = None

    async def asking() -> None:
        try:
            answers.append(await doing)
        except Exception as error:  # noqa: BLE001 - raised below, in the task that asked
            errors.append(error)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(asking)
        await anyio.sleep(READ_WITHIN_S)
        while True:
            away = health.troubles.get(_PART)
            if away is not None:
                break
            await anyio.sleep(_LOOK_S)
        group.cancel_scope.cancel()
    if errors:
        raise errors[0]
    if answers:
        return answers[0]
    assert away is not None, "nothing else ends the wait"
    raise UnavailableError(f"the database does not answer: {away.reason}")
