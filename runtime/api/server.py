"""Serves the API on a socket that is bound already, in the node's own loop, and ends in time."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Final

import anyio
import uvicorn
from anyio.abc import TaskStatus

from runtime.api.app import make_app
from runtime.api.tail import Tail
from runtime.metrics import Metrics
from runtime.services import Services

HEADER_BYTES_MAX: Final = 32 * 1024
KEEP_ALIVE_S: Final = 30
STOP_WITHIN_S: Final = 3
CONNECTIONS_MAX: Final = 1000
_TICK_S: Final = 1.0


class ApiServer:
    """The HTTP server of one node.

    Args:
        node: what it serves.
        listening: a bound socket; it is closed when the server ends.
    """

    def __init__(self, node: Services, listening: socket.socket) -> None:
        self._listening = listening
        self._tail = Tail(node.keeping)
        self._metrics = Metrics(node)
        self._ended = anyio.Event()
        self._server: _Server | None = None
        self._app = make_app(node, tail=self._tail, metrics=self._metrics)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`; started once requests are answered.

        From then on a cancel does not end it: the loop would keep watching a socket that is closed,
        and whatever is opened next under its number would never be heard.
        """
        config = uvicorn.Config(
            self._app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_WITHIN_S,
            h11_max_incomplete_event_size=HEADER_BYTES_MAX,
            limit_concurrency=CONNECTIONS_MAX,
        )
        scope = anyio.CancelScope()

        def started() -> None:
            scope.shield = True
            task_status.started()

        self._server = _Server(config, started)
        try:
            with scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._tail.run, name="event tail")
                    group.start_soon(self._metrics.measure, name="loop lag")
                    await self._server.serve(sockets=[self._listening])
                    group.cancel_scope.cancel()
        finally:
            self._listening.close()
            self._ended.set()

    async def wait_followed(self) -> None:
        """Return once a stream or a wait is open; for tests."""
        await self._tail.wait_followed()

    async def stop(self) -> None:
        """End: streams at once, requests within a few seconds."""
        self._tail.end()
        if self._server is None:
            return
        self._server.end()
        await self._ended.wait()


class _Server(uvicorn.Server):
    """Without signal handlers of its own: the node has them."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._exit = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def main_loop(self) -> None:
        """Renew the answers' date each second; uvicorn's own looks ten times for its end."""
        while not await self.on_tick(0):
            with anyio.move_on_after(_TICK_S):
                await self._exit.wait()

    def end(self) -> None:
        """Have `serve` return once the requests under way are answered."""
        self.should_exit = True
        self._exit.set()
