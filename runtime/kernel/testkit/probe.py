"""A probe: an actor that a test reads like a list of what came."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from protocols.actor import Actor, Context, Ref, Terminated

if TYPE_CHECKING:
    from runtime.kernel.testkit.kit import TestKit


class Probe:
    """Receives everything, answers asks by `answer`, and lets a test expect messages in turn."""

    def __init__(self, kit: "TestKit", answer: Callable[[Any], Any] | None) -> None:
        self._kit = kit
        self._answer = answer
        self._read = 0
        self._ctx: Context | None = None
        self.received: list[Any] = []
        self.ref: Ref

    @property
    def unread(self) -> list[Any]:
        """What came and was not yet expected."""
        return self.received[self._read :]

    async def expect(self, wanted: Any, *, within_s: float = 10.0) -> Any:
        """The next message, which must be of the type `wanted`, or equal to it.

        Raises:
            AssertionError: Another came, or none within `within_s` virtual seconds.
        """
        what = f"a probe waits for {wanted!r}"
        await self._kit.wait_until(lambda: bool(self.unread), within_s=within_s, what=what)
        message = self.unread[0]
        self._read += 1
        fits = isinstance(message, wanted) if isinstance(wanted, type) else message == wanted
        if not fits:
            raise AssertionError(f"{what}; {message!r} came")
        return message

    async def expect_none(self, within_s: float = 1.0) -> None:
        """Let so much virtual time pass, in which nothing may come.

        Raises:
            AssertionError: Something did.
        """
        await self._kit.advance(within_s)
        if self.unread:
            raise AssertionError(f"a probe waits for silence; {self.unread[0]!r} came")

    async def watch(self, ref: Ref) -> None:
        """Watch an actor; its `Terminated` comes like any message."""
        await self.ref.ask(_Watch(ref), deadline=1.0)

    async def expect_terminated(self, ref: Ref, *, within_s: float = 10.0) -> Terminated:
        """The next message, which must be the end of `ref`."""
        message: Terminated = await self.expect(Terminated, within_s=within_s)
        if message.ref is not ref:
            raise AssertionError(f"{message.ref!r} has ended, not {ref!r}")
        return message

    def take(self, message: Any) -> Any:
        """Keep what came; what this returns is the answer."""
        self.received.append(message)
        return None if self._answer is None else self._answer(message)


class _Watch:
    """Tells the probe's actor whom to watch."""

    def __init__(self, ref: Ref) -> None:
        self.ref = ref


class ProbeActor(Actor):
    """The actor behind a probe."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    async def receive(self, message: Any, ctx: Context) -> Any:
        """Keep it, for the test to read."""
        if isinstance(message, _Watch):
            ctx.watch(message.ref)
            return None
        return self._probe.take(message)
