"""etcd3-py's client, made fit for service: every call finds a member that answers, or says why not.

etcd3-py 0.1.6 asks for the version by a blocking request, knows one endpoint, checks no host name,
loses an error's text from etcd 3.6 on, and its asynchronous streams raise TypeError. Its unary
calls are sound and are used as they are; keepalive and watch are asked for over the same session.
"""

from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar

import aiohttp
import msgspec
from etcd3 import AioClient
from etcd3.errors import (
    ErrAuthNotEnabled,
    ErrCompacted,
    ErrLeaseNotFound,
    Etcd3Exception,
    get_client_error,
)
from etcd3.utils import incr_last_byte
from semantic_version import Version

from protocols.errors import UnavailableError
from runtime.etcd.settings import EtcdSettings, endpoints, tls
from runtime.etcd.wire import (
    CALLS,
    UNKNOWN,
    KeptLine,
    Refusal,
    Told,
    ToldLine,
    answer_of,
    encoded,
)

T = TypeVar("T")

_UNTIL_ASKED: Final = "3.4.0"
_OLDEST: Final = Version("3.4.22")
_LOSES_DATA: Final = (Version("3.5.0"), Version("3.5.6"))
_OK_BELOW: Final = 400
_UNAUTHENTICATED: Final = 16
_ELSEWHERE: Final = frozenset({1, 2, 4, 8, 9, 13, 14, 15})
"""gRPC codes after which another member may do better: unavailable, timed out, no leader, ..."""
_STALE_TOKEN: Final = (
    "invalid auth token",
    "user name is empty",
    "revision of auth store is old",
)
_ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024


def trouble_of(version: str) -> str | None:
    """What is known against a release of etcd, as a sentence; None where nothing is."""
    release = Version(version)
    if release < _OLDEST:
        return f"etcd {version} is older than {_OLDEST}, the oldest that is supported"
    if _LOSES_DATA[0] <= release < _LOSES_DATA[1]:
        return (
            f"etcd {version} can lose what it holds when it is killed: upgrade to {_LOSES_DATA[1]}"
        )
    return None


class EtcdClient(AioClient):  # type: ignore[misc] # etcd3-py has no types
    """All members of one etcd, behind etcd3-py's own calls.

    Wrap each call in `reach`, as in `await client.reach(lambda: client.put(key, value))`.
    Keys and values are bytes: etcd3-py would encode text as Latin-1.

    Raises:
        InvalidError: An endpoint or a certificate is of no use.
    """

    token: str | None
    session: aiohttp.ClientSession | None

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._members = endpoints(settings)
        self._current = 0
        self._tokenless = False
        first = self._members[0]
        # Not AioClient's own: it makes a connector, and a TLS context that checks no host name.
        super(AioClient, self).__init__(
            host=first.host,
            port=first.port,
            protocol=first.protocol,
            username=settings.user,
            password=settings.password,
            timeout=aiohttp.ClientTimeout(total=settings.call_s),
        )
        self._tls = None
        if any(member.protocol == "https" for member in self._members):
            self._tls = tls(settings)
        self.session = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=True if self._tls is None else self._tls)
        self.session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.session is not None:
            await self.session.close()

    @property
    def open(self) -> bool:
        """Whether calls can be made."""
        return self.session is not None and not self.session.closed

    @property
    def baseurl(self) -> str:
        """The member that is asked now."""
        return self._members[self._current].url

    def _retrieve_version(self) -> None:
        """Take the oldest supported until `learn_version` has asked."""
        self._take_version(_UNTIL_ASKED, _UNTIL_ASKED)

    def _take_version(self, server: str, cluster: str) -> None:
        self.server_version_sem, self.cluster_version_sem = Version(server), Version(cluster)
        self.server_version, self.cluster_version = server, cluster

    def _encodeRPCRequest(self, method: str, data: Any) -> Any:  # noqa: N802 - etcd3-py's name
        return encoded(data) if method in CALLS else super()._encodeRPCRequest(method, data)

    def _modelizeResponseData(  # noqa: N802 - etcd3-py's name
        self,
        method: str,
        data: Any,
        decode: bool = True,  # noqa: FBT001, FBT002 - its signature
    ) -> Any:
        if method in CALLS:
            return answer_of(data)
        return super()._modelizeResponseData(method, data, decode)

    async def learn_version(self) -> str:
        """Ask for the server's version, and speak to it accordingly.

        Raises:
            UnavailableError: No member answers.
        """
        await self.reach(self._ask_version)
        self._get_prefix()
        return str(self.server_version)

    async def _ask_version(self) -> None:
        """Take what one member says; ValueError where its cluster has `not_decided` yet."""
        url, limit = self._url("/version", prefix=False), self.timeout
        async with self._get(url, timeout=limit) as answer:
            await self._raise_for_status(answer)
            told = msgspec.json.decode(await answer.read(), type=dict[str, str])
        self._take_version(told["etcdserver"], told["etcdcluster"])

    async def reach(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call at the member asked last, and where that fails at the others in turn.

        A call that failed may have been done all the same: it is the caller's to look.

        Raises:
            UnavailableError: No member did it, or etcd refuses it to us.
            ErrLeaseNotFound, ErrCompacted: As etcd says.
        """
        reason = ""
        for _ in range(len(self._members) + 1):
            at = self._current
            try:
                return await self._admitted(call)
            except (ErrLeaseNotFound, ErrCompacted):
                raise
            except Etcd3Exception as error:
                reason = _text(error)
                if _code(error) not in _ELSEWHERE:
                    raise UnavailableError(f"etcd refuses: {reason}") from error
            except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
                reason = str(error) or "no answer in time"
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                reason = f"its answer is not etcd's ({type(error).__name__})"
            reason = f"{self._members[at].url}: {reason}"
            if self._current == at:
                self._current = (at + 1) % len(self._members)
        raise UnavailableError(f"etcd cannot be reached: {reason}")

    async def _admitted(self, call: Callable[[], Awaitable[T]]) -> T:
        """Log in first where that is needed, and again where a token has come of age."""
        if self.username and self.token is None and not self._tokenless:
            await self._log_in()
        try:
            return await call()
        except Etcd3Exception as error:
            if not self.username or not _stale_token(error):
                raise
        await self._log_in()
        return await call()

    async def _log_in(self) -> None:
        try:
            await self.auth()
            self._tokenless = False
        except ErrAuthNotEnabled:
            self.token, self._tokenless = None, True

    async def keep_alive(self, lease: int) -> int:
        """Renew a lease; return the seconds it now has, 0 where it is gone.

        Raises:
            UnavailableError: No member answers.
        """
        try:
            return await self.reach(lambda: self._keep_alive(lease))
        except ErrLeaseNotFound:
            return 0

    async def _keep_alive(self, lease: int) -> int:
        body = {"ID": str(lease)}
        url, limit = self._url("/lease/keepalive"), self.timeout
        async with self._post(url, json=body, headers=self._proof(), timeout=limit) as answer:
            await self._raise_for_status(answer)
            text = await answer.content.readline()
        line = msgspec.json.decode(text, type=KeptLine, strict=False)
        if line.result is None:
            _raise_told(line.error)
        return line.result.TTL

    @asynccontextmanager
    async def watch(
        self, prefix: bytes, *, start: int, quiet_s: float
    ) -> AsyncIterator[AsyncIterator[Told]]:
        """Follow the keys that begin with `prefix`, from revision `start` on.

        The answers end with TimeoutError where none comes for `quiet_s`: the stream may be dead.
        Whatever else ends them is an Etcd3Exception or one of aiohttp's errors.
        """
        wanted = {
            "key": b64encode(prefix).decode(),
            "range_end": b64encode(incr_last_byte(prefix)).decode(),
            "start_revision": str(start),
        }
        limit = aiohttp.ClientTimeout(
            total=None, sock_connect=self._settings.call_s, sock_read=quiet_s
        )
        async with self._post(
            self._url("/watch"),
            json={"create_request": wanted},
            headers=self._proof(),
            timeout=limit,
        ) as answer:
            await self._raise_for_status(answer)
            yield _lines(answer)

    def _proof(self) -> dict[str, str]:
        return {"authorization": self.token} if self.token else {}

    @staticmethod
    async def _raise_for_status(resp: aiohttp.ClientResponse) -> None:
        """Raise etcd's error, whichever release words it; etcd3-py knows up to 3.5's."""
        if resp.status < _OK_BELOW:
            return
        try:
            told = msgspec.json.decode(await resp.read(), type=Refusal)
        except msgspec.MsgspecError:
            told = Refusal(error=f"HTTP {resp.status} {resp.reason}")
        _raise_refusal(told, status=resp.status)


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[Told]:
    """The answers of a watch, one a line, however the network has cut them."""
    left = b""
    async for piece in answer.content.iter_any():
        left += piece
        *lines, left = left.split(b"\n")
        if len(left) > _ANSWER_BYTES_MAX:
            raise aiohttp.ClientPayloadError("an answer of a watch is longer than etcd's can be")
        for text in lines:
            line = msgspec.json.decode(text, type=ToldLine, strict=False)
            if line.result is None:
                _raise_told(line.error)
            yield line.result


def _raise_told(error: Any) -> NoReturn:
    """Raise an error that came in a stream."""
    try:
        told = msgspec.convert(error, Refusal)
    except msgspec.ValidationError:
        told = Refusal(error=str(error))
    _raise_refusal(told, status=200)


def _raise_refusal(told: Refusal, *, status: int) -> NoReturn:
    code = told.code if 0 < told.code <= _UNAUTHENTICATED else UNKNOWN
    raise get_client_error(told.error or told.message, code, status)


def _code(error: Etcd3Exception) -> int:
    return int(getattr(error, "code", UNKNOWN))


def _text(error: Etcd3Exception) -> str:
    return str(getattr(error, "error", error))


def _stale_token(error: Etcd3Exception) -> bool:
    return _code(error) == _UNAUTHENTICATED or any(s in _text(error) for s in _STALE_TOKEN)
