"""One attempt as the executor holds it, and the port through which runners report on it."""

from typing import Any, Final, Literal, Protocol

from protocols.ports.executor import Assignment, OutcomeState, Output

BARREN_S: Final = 0.05
BARREN_S_MAX: Final = 5.0

Reason = Literal["timeout", "cancel", "heartbeat", "lock", "shutdown"]
"""Why the node ends an attempt; the first reason wins."""

ENDED_AS: Final[dict[Reason, OutcomeState]] = {
    "timeout": "timed_out",
    "cancel": "cancelled",
    "heartbeat": "lost",
    "lock": "failed",
    "shutdown": "lost",
}


class Work:
    """An assignment under way; instants in nanoseconds of CLOCK_MONOTONIC."""

    __slots__ = (
        "assignment",
        "beat_ns",
        "begun_ns",
        "fed_ns",
        "number",
        "place",
        "reason",
        "runner",
        "token",
        "told",
    )

    def __init__(self, assignment: Assignment, runner: "Runner") -> None:
        self.assignment = assignment
        self.token = assignment.fencing_token
        self.runner = runner
        self.number = 0
        """Its place among all that its host was fed."""
        self.place: Any = None
        """Where its runner has it: a host, or a unit of the guardian."""
        self.fed_ns = 0
        self.begun_ns = 0
        self.beat_ns = 0
        self.reason: Reason | None = None
        self.told = ""
        """The reason in words, where there is more to say than its name does."""

    def is_ending(self) -> bool:
        """Asked anew: it may become so while its runner waits."""
        return self.reason is not None

    def why(self) -> str:
        """What a person reads about an attempt that the node ended."""
        match self.reason:
            case "timeout":
                return f"timed out after {self.assignment.timeout_s:g} s"
            case "cancel":
                return "cancelled"
            case "heartbeat":
                beat_s = self.assignment.heartbeat_s or 0.0
                return f"no heartbeat for {3 * beat_s:g} s, three times its interval"
            case "lock":
                return self.told
            case _:
                return "given back: the node shuts down"


def withdrawn_as(work: Work) -> OutcomeState:
    """What becomes of an attempt that was told to end before its first line."""
    if work.reason is None or work.reason == "shutdown":
        return "unstarted"
    return ENDED_AS[work.reason]


def barren_delay_s(count: int) -> float:
    """How long to wait after `count` hosts in a row that could run nothing."""
    return min(BARREN_S * 2.0 ** min(count, 16), BARREN_S_MAX)


class Desk(Protocol):
    """What the executor does for its runners."""

    def begun(self, work: Work, at_ns: int) -> None:
        """The attempt's first line is about to run."""

    def finish(
        self,
        work: Work,
        state: OutcomeState,
        *,
        at_ns: int | None = None,
        error: str | None = None,
        exit_code: int | None = None,
        result: bytes | None = None,
        output: Output | None = None,
        unimportable: bool = False,
        bystander: bool = False,
    ) -> None:
        """The attempt has ended, and nothing of it lives on."""

    def ask(self, work: Work, host: Any, number: int, kind: str, value: bytes | None) -> None:
        """The attempt asks the node; the answer goes to `host.answer(number, ...)`."""

    def held(self, work: Work | None, for_s: float, stack: str) -> None:
        """An attempt has held its host's loop."""


class Runner(Protocol):
    """Runs attempts of one kind."""

    def start(self, works: list[Work]) -> None:
        """Begin these."""

    def begun_ns(self, work: Work) -> int:
        """When its first line ran, or 0."""

    def end(self, work: Work) -> None:
        """Ask it to end for `work.reason`; kill it after the grace."""

    async def close(self) -> None:
        """Let go of idle processes; nothing is under way any more."""


def output_of(head: bytes | None, tail: bytes, omitted: int) -> Output | None:
    """None where nothing was printed."""
    if not head:
        return None
    return Output(head=head, tail=tail, omitted_bytes=omitted)
