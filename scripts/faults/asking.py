"""HTTP to a node's API, cheap enough to ask hundreds of times a second beside all else."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

ASK_S = 10.0


class AskError(Exception):
    """No answer came; whether the node did it is not known."""


class Caller:
    """One kept connection to whoever is asked, made again when it is gone."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._at = ""
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(
        self, url: str, path: str, body: object, *, key: str = "", within_s: float = ASK_S
    ) -> tuple[int, Any]:
        """Status and answer.

        Raises:
            AskError: the connection failed, or there was no answer in time.
        """
        return await self._ask("POST", url, path, json.dumps(body).encode(), key, within_s)

    async def get(self, url: str, path: str, *, within_s: float = ASK_S) -> tuple[int, Any]:
        """As `post`."""
        return await self._ask("GET", url, path, b"", "", within_s)

    def close(self) -> None:
        """Drop the connection."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None
        self._at = ""

    async def _ask(
        self, method: str, url: str, path: str, body: bytes, key: str, within_s: float
    ) -> tuple[int, Any]:
        try:
            async with asyncio.timeout(within_s):
                return await self._exchange(method, url, path, body, key)
        except (OSError, TimeoutError, EOFError, ValueError) as error:
            self.close()
            raise AskError(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            self.close()
            raise

    async def _exchange(
        self, method: str, url: str, path: str, body: bytes, key: str
    ) -> tuple[int, Any]:
        if self._at != url or self._writer is None:
            self.close()
            parts = urlsplit(url)
            self._reader, self._writer = await asyncio.open_connection(parts.hostname, parts.port)
            self._at = url
        assert self._reader is not None
        head = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
        head += [f"Authorization: Bearer {self._token}", "Accept: application/json"]
        if method == "POST":
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        if key:
            head.append(f"Idempotency-Key: {key}")
        self._writer.write("\r\n".join([*head, "", ""]).encode() + body)
        await self._writer.drain()
        status = int((await self._line()).split()[1])
        length, chunked, closes = 0, False, False
        while line := (await self._line()).lower():
            name, _, value = line.partition(":")
            length = int(value) if name == "content-length" else length
            chunked = chunked or (name == "transfer-encoding" and "chunked" in value)
            closes = closes or (name == "connection" and "close" in value)
        answer = await self._chunks() if chunked else await self._reader.readexactly(length)
        if closes:
            self.close()
        try:
            return status, json.loads(answer) if answer else None
        except ValueError:
            return status, answer.decode(errors="replace")

    async def _line(self) -> str:
        assert self._reader is not None
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the connection was closed in the middle of an answer")
        return line.decode("latin-1").strip()

    async def _chunks(self) -> bytes:
        assert self._reader is not None
        found = b""
        while size := int(await self._line(), 16):
            found += await self._reader.readexactly(size)
            await self._line()
        await self._line()
        return found
