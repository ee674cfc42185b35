"""A handle to one execution, for the program that asked for it."""

from typing import Final

import anyio

from protocols.errors import UnavailableError
from protocols.executions import FINAL
from protocols.views import ExecutionDetail
from runtime.postgres.operations.executions import show_execution
from runtime.postgres.operations.session import Connection, transact
from runtime.services import Services

_FIRST_LOOK_S: Final = 0.005
_LOOK_S: Final = 0.25


class Execution:
    """One execution; `execution_id` is what every other surface knows it by."""

    def __init__(self, node: Services, tenant: str, execution_id: str) -> None:
        self.execution_id = execution_id
        self.tenant = tenant
        self._node = node

    def __repr__(self) -> str:
        return f"Execution({self.execution_id!r})"

    async def show(self) -> ExecutionDetail:
        """What the books say of it now."""

        async def work(conn: Connection) -> ExecutionDetail:
            return await show_execution(
                conn, tenant=self.tenant, execution=self.execution_id, now=self._node.clock.now()
            )

        return await transact(self._node.api, self.tenant, work)

    async def wait(self, timeout_s: float | None = None) -> ExecutionDetail:
        """Return once its state is final; an outage of the database is waited out.

        Raises:
            TimeoutError: It was not final within `timeout_s` seconds.
        """
        pause_s = _FIRST_LOOK_S
        with anyio.fail_after(timeout_s):
            while True:
                try:
                    shown = await self.show()
                except UnavailableError:
                    shown = None
                if shown is not None and shown.state in FINAL:
                    return shown
                await anyio.sleep(pause_s)
                pause_s = min(_LOOK_S, pause_s * 1.5)
