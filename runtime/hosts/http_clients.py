"""Idle HTTP clients by server: each carries one request at a time, and keeps its connection.

One client with one pool would do the same, but httpcore's pool looks at every connection for every
request: 64 requests at once cost three times what they cost here.
"""

import ssl
from collections import OrderedDict

import anyio
import httpx

IDLE_MAX = 64
CONNECT_S = 30.0
REDIRECTS_MAX = 10
SKIPPED_BYTES_MAX = 64 * 1024


class Clients:
    """Made when needed; the ones used longest ago are closed first."""

    def __init__(self) -> None:
        self._idle: OrderedDict[httpx.AsyncClient, str] = OrderedDict()
        self._tls: ssl.SSLContext | None = None

    def take(self, url: str) -> httpx.AsyncClient:
        """A client for a request to this server; the caller's alone until `give_back`.

        Raises:
            httpx.InvalidURL: it is none.
        """
        server = origin(url)
        for client in reversed(self._idle):
            if self._idle[client] == server:
                del self._idle[client]
                return client
        if self._tls is None:
            # Reading the certificates takes 20 ms: once for all.
            self._tls = httpx.create_ssl_context(trust_env=False)
        return httpx.AsyncClient(
            verify=self._tls,
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            trust_env=False,
        )

    async def send(self, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        """The answer after all redirects, its body unread.

        httpx would follow by itself, but reads each redirect's body whole, however long it is.

        Raises:
            httpx.TooManyRedirects: more than `REDIRECTS_MAX`.
        """
        for _ in range(REDIRECTS_MAX + 1):
            response = await client.send(request, stream=True)
            if response.next_request is None:
                return response
            try:
                await _skip(response)
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
            request = response.next_request
        raise httpx.TooManyRedirects("too many redirects", request=request)

    async def give_back(self, client: httpx.AsyncClient, url: str) -> None:
        """Keep the client for the next request to this server."""
        client.cookies.clear()
        self._idle[client] = origin(url)
        while len(self._idle) > IDLE_MAX:
            oldest, _ = self._idle.popitem(last=False)
            await oldest.aclose()

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            client, _ = self._idle.popitem()
            await client.aclose()


async def _skip(response: httpx.Response) -> None:
    """Read a short body to its end, so that the connection can be used again; leave a long one."""
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > SKIPPED_BYTES_MAX:
            return


def origin(url: str) -> str:
    """Scheme, host and port."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode()}"
