"""ElectorActor: campaigns for a group of shards and keeps a TimerActor for each term it wins.

Winning is not enough to fire: the epoch is taken from the store first, once a term. A timer that
is fenced, while the leadership is still ours, gets a new term with a newer epoch. A leadership that
is lost, or another node's to have, is resigned once its timer has ended, never before.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocols.actor import Actor, Context, Props, Ref, Terminated
from protocols.errors import NotFoundError, UnavailableError
from protocols.ports.coordinator import Coordinator, Leadership
from protocols.ports.store import Term, TimerStore

_RETRY_S: Final = 0.5

MakeTimer = Callable[[Term, Leadership], Actor]


class _Won(msgspec.Struct, frozen=True):
    leadership: Leadership


class _Took(msgspec.Struct, frozen=True):
    term: Term


class _Retake(msgspec.Struct, frozen=True):
    """Take the epoch again."""


class _Lost(msgspec.Struct, frozen=True):
    """The leadership is over, or is to pass on."""


class _Resigned(msgspec.Struct, frozen=True):
    """It is nobody's now."""


class _Failed(msgspec.Struct, frozen=True):
    error: Exception


class ElectorActor(Actor):
    """Holds one group of shards for as long as the coordinator lets it."""

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        store: TimerStore,
        number: int,
        incarnation: int,
        make_timer: MakeTimer,
        leads: dict[int, int],
    ) -> None:
        self._coordinator = coordinator
        self._store = store
        self._number = number
        self._incarnation = incarnation
        self._make_timer = make_timer
        self._leads = leads
        self._leadership: Leadership | None = None
        self._timer: Ref | None = None
        self._taking = False
        self._leaving = False
        self._stopped = False

    async def on_start(self, ctx: Context) -> None:
        """Stand for election."""
        self._campaign(ctx)

    async def receive(self, message: Any, ctx: Context) -> None:
        """Follow the leadership: won, its epoch taken, its timer ended, lost, resigned."""
        match message:
            case _Won(leadership=leadership):
                ctx.pipe(leadership.lost(), on_done=lambda _: _Lost())
                self._take(ctx)
            case _Took(term=term):
                self._taking = False
                self._begin(term, ctx)
            case _Retake():
                self._take(ctx)
            case Terminated():
                self._timer = None
                self._leads.pop(self._number, None)
                if self._leaving:
                    self._resign(ctx)
                else:
                    self._take(ctx)
            case _Lost():
                self._leaving = True
                if self._timer is not None:
                    ctx.stop(self._timer)
                else:
                    self._resign(ctx)
            case _Resigned():
                self._leadership, self._leaving = None, False
                self._campaign(ctx)
            case _Failed(error=error):
                self._taking = False
                # No such leadership: there are fewer now, and who ends electors has yet to hear it.
                if not isinstance(error, UnavailableError | NotFoundError):
                    raise error
                ctx.after(_RETRY_S, _Retake())

    async def on_stop(self, ctx: Context) -> None:
        """Resign, so that a rolling restart has no gap; the timer has ended by now."""
        del ctx
        self._stopped = True
        self._leads.pop(self._number, None)
        if self._leadership is not None:
            await self._leadership.resign()

    def _campaign(self, ctx: Context) -> None:
        ctx.pipe(self._stand, on_done=_Won)

    async def _stand(self) -> Leadership:
        """Know of a victory before its message comes: who is stopped between them resigns it."""
        leadership = self._leadership = await self._coordinator.campaign(self._number)
        if self._stopped:
            await leadership.resign()
        return leadership

    def _resign(self, ctx: Context) -> None:
        leadership = self._leadership
        assert leadership is not None, "only what was won is lost"
        ctx.pipe(leadership.resign, on_done=lambda _: _Resigned())

    def _take(self, ctx: Context) -> None:
        leadership = self._leadership
        if leadership is None or self._timer is not None or self._taking or self._leaving:
            return
        if not leadership.trusted():
            ctx.after(_RETRY_S, _Retake())
            return
        self._taking = True
        ctx.pipe(
            lambda: self._store.take_epoch(self._number, self._incarnation, now=ctx.clock.now()),
            on_done=_Took,
            on_error=_Failed,
        )

    def _begin(self, term: Term, ctx: Context) -> None:
        leadership = self._leadership
        if leadership is None or self._timer is not None or self._leaving:
            return
        self._leads[self._number] = term.epoch
        self._timer = ctx.spawn(
            Props(
                name=f"timer-{self._number}-{term.epoch}",
                factory=lambda: self._make_timer(term, leadership),
                restart="transient",
            )
        )
        ctx.watch(self._timer)
