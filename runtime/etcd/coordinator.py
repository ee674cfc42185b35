"""The Coordinator over etcd: each node sees the same members and comes to the same plan.

Who is to lead what is computed by every node of what all see; a key that only one can create
decides who does. Both hang on one lease per node, so a node that dies lets go of everything at
once, and PostgreSQL's epochs refuse whoever has not noticed.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

import anyio
import structlog
from etcd3.errors import ErrLeaseNotFound

from actors.placement import plan
from protocols.errors import UnavailableError
from protocols.ports.coordinator import Leadership
from runtime.clock import monotonic_ns
from runtime.etcd.client import EtcdClient, trouble_of
from runtime.etcd.keys import Keys
from runtime.etcd.leadership import EtcdLeadership
from runtime.etcd.session import Session, pause_s
from runtime.etcd.settings import EtcdSettings
from runtime.etcd.view import View
from runtime.etcd.watch import PrefixWatch

log = structlog.get_logger("tickwright.etcd")

SETTLE_S: Final = 1.0
"""How long the plan must want a leadership elsewhere before it moves: a cluster that is starting,
or a node that restarts, would shuffle otherwise."""
_LOOK_S: Final = 1.0
_IDLE_S: Final = 0.1
_RESIGN_S: Final = 1.0
_LEAVE_S: Final = 2.0


def _ignore(reason: str | None) -> None:
    del reason


class EtcdCoordinator:
    """Elects leaders while `run` runs; until then, and while etcd is away, campaigns wait.

    Args:
        name: what people call the node.
        incarnation: what tells it from every other, living or dead.
        now_ns: a clock that never goes back, and counts while the machine sleeps.
        on_state: called with a sentence when etcd cannot be used, with None when it can again.

    Raises:
        InvalidError: An endpoint or a certificate is of no use.
    """

    def __init__(
        self,
        settings: EtcdSettings,
        *,
        name: str,
        incarnation: int,
        now_ns: Callable[[], int] = monotonic_ns,
        on_state: Callable[[str | None], None] = _ignore,
    ) -> None:
        self._incarnation = incarnation
        self._on_state = on_state
        self._client = EtcdClient(settings)
        self._troubles: dict[str, str] = {}
        self._session = Session(
            self._client,
            ttl_s=settings.ttl_s,
            now_ns=now_ns,
            on_change=self._stir,
            on_state=partial(self._note, "lease"),
        )
        self._view = View(settings.prefix)
        self._watch = PrefixWatch(
            self._client,
            self._view,
            prefix=settings.prefix,
            quiet_s=settings.ttl_s,
            on_change=self._stir,
            on_reset=self._session.doubt,
            on_state=partial(self._note, "watch"),
        )
        self._keys = Keys(self._client, self._view, name=name, incarnation=incarnation)
        self._numbers = 0
        self._fit = True
        self._standing: Counter[int] = Counter()
        self._led: dict[int, EtcdLeadership] = {}
        self._busy: set[int] = set()
        """Groups whose key is being written by us at this moment."""
        self._unwanted: dict[int, float] = {}
        """Since when the plan has given what we lead to others."""
        self._plan: dict[int, int] | None = None
        self._pulse = anyio.Event()

    async def run(self) -> None:
        """Take part until cancelled; then give everything back, so that nobody waits for it."""
        async with self._client:
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._greet, name="etcd version")
                    group.start_soon(self._session.run, name="etcd lease")
                    group.start_soon(self._watch.run, name="etcd watch")
                    group.start_soon(self._publish, name="etcd member")
                    group.start_soon(self._watch_over, name="etcd leaderships")
            finally:
                for leadership in self._led.values():
                    leadership.end()
                with anyio.move_on_after(_LEAVE_S, shield=True):
                    await self._leave()

    async def _greet(self) -> None:
        """Learn whom we speak to, and tell what is known against it."""
        failures = 0
        while True:
            try:
                version = await self._client.learn_version()
            except UnavailableError:
                failures += 1
                await anyio.sleep(pause_s(failures))
            else:
                break
        log.info("etcd answers", version=version)
        if (trouble := trouble_of(version)) is not None:
            log.warning(trouble)

    async def _leave(self) -> None:
        try:
            await self._session.close()
        except UnavailableError as error:
            log.info("the lease in etcd is left to end by itself", reason=str(error))

    async def campaign(self, number: int) -> Leadership:
        """Wait until the plan gives this node the group and nobody else holds it; then take it."""
        self._standing[number] += 1
        self._stir()
        try:
            while True:
                pulse = self._pulse
                if self._may_take(number):
                    leadership = await self._take(number)
                    if leadership is not None:
                        return leadership
                with anyio.move_on_after(_LOOK_S):
                    await pulse.wait()
        finally:
            self._standing[number] -= 1
            self._stir()

    def fit(self, yes: bool, /) -> None:  # noqa: FBT001 - the one thing it says
        """Say whether this node can do a leader's work."""
        self._fit = yes
        self._stir()

    def cover(self, numbers: int, /) -> None:
        """Tell how many groups there are; none before it is told."""
        self._numbers = numbers
        self._stir()

    def _stir(self) -> None:
        """Something has changed: whoever waits looks again."""
        self._plan = None
        pulse, self._pulse = self._pulse, anyio.Event()
        pulse.set()

    def _note(self, part: str, reason: str | None) -> None:
        """Tell the first trouble and the end of the last one, not each attempt between them."""
        before = bool(self._troubles)
        if reason is None:
            self._troubles.pop(part, None)
        else:
            self._troubles.setdefault(part, reason)
        if bool(self._troubles) == before:
            return
        if reason is None:
            log.info("etcd answers again")
        else:
            log.warning("etcd is away; leaderships end with their lease", reason=reason)
        self._on_state(reason)

    # -- the plan

    def _planned(self) -> dict[int, int]:
        if self._plan is None:
            self._plan = plan(range(self._numbers), self._view.fit, self._view.holders)
        return self._plan

    def _ours(self, number: int) -> bool:
        """Whether the group's key is there, and on our lease."""
        holder = self._view.leaders.get(number)
        return holder is not None and holder.lease == self._session.lease != 0

    def _may_take(self, number: int) -> bool:
        return (
            self._planned().get(number) == self._incarnation
            and self._session.trusted()
            and number not in self._led
            and number not in self._busy
            and (number not in self._view.leaders or self._ours(number))
        )

    # -- keys

    async def _take(self, number: int) -> EtcdLeadership | None:
        """Create the group's key, or find that an attempt whose answer was lost had done it."""
        life = self._session.life
        self._busy.add(number)
        try:
            revision = await self._keys.create(number, lease=self._session.lease)
        except UnavailableError:
            return None
        except ErrLeaseNotFound:
            self._session.look()
            return None
        finally:
            self._busy.discard(number)
        if revision is None or life != self._session.life:
            return None
        leadership = EtcdLeadership(
            number=number,
            create_revision=revision,
            session=self._session,
            give_back=self._give_back,
        )
        self._led[number] = leadership
        self._stir()
        return leadership

    async def _give_back(self, leadership: EtcdLeadership) -> None:
        """Delete the key; where that cannot be done now, it is left to `_watch_over`."""
        number = leadership.number
        try:
            with anyio.move_on_after(_RESIGN_S):
                await self._delete(number, leadership.create_revision)
        finally:
            if self._led.get(number) is leadership:
                del self._led[number]
            self._stir()

    async def _delete(self, number: int, create_revision: int) -> None:
        """Delete a group's key if it is that one, and ours."""
        lease = self._session.lease
        if not lease or not self._client.open:
            return
        self._busy.add(number)
        try:
            await self._keys.delete(number, create_revision=create_revision, lease=lease)
        except (UnavailableError, ErrLeaseNotFound) as error:
            log.info("a leadership is given back later", number=number, reason=str(error))
        finally:
            self._busy.discard(number)

    # -- what goes on beside campaigns

    async def _publish(self) -> None:
        """Keep the member's key true: on the lease of now, saying whether the node is fit.

        A node that neither leads nor stands for anything, since it starts or stops, is not fit:
        nobody would do what the plan gave it.
        """
        failures, said, revision = 0, (0, 0, False), 0
        while True:
            pulse, session = self._pulse, self._session
            stands = bool(self._led) or self._standing.total() > 0
            fit = self._fit and stands
            wanted = (session.life, session.lease, fit)
            done = wanted == said and not self._keys.unsaid(fit=fit, revision=revision)
            if done or not session.lease:
                await pulse.wait()
                continue
            if self._fit and not stands:
                await anyio.sleep(_IDLE_S)  # between a resignation and the campaign after it
                if self._led or self._standing.total() > 0:
                    continue
            try:
                revision = await self._keys.say(lease=wanted[1], fit=fit)
                said, failures = wanted, 0
            except ErrLeaseNotFound:
                session.look()
                await pulse.wait()
            except UnavailableError:
                failures += 1
                await anyio.sleep(pause_s(failures))

    async def _watch_over(self) -> None:
        """End what is lost, pass on what is another's, and delete keys that nobody here wants."""
        while True:
            pulse = self._pulse
            wait_s = self._judge()
            for number, revision in self._strays():
                with anyio.move_on_after(_RESIGN_S):
                    await self._delete(number, revision)
            with anyio.move_on_after(wait_s):
                await pulse.wait()

    def _judge(self) -> float | None:
        """Look at all that is led; return in how many seconds there is more to do."""
        now_s, due = anyio.current_time(), []
        for number, leadership in self._led.items():
            holder = self._view.leaders.get(number)
            known = self._view.revision >= leadership.create_revision
            kept = holder is not None and holder.create_revision == leadership.create_revision
            if not leadership.of_this_life or (known and not (kept and self._ours(number))):
                leadership.end()
            elif self._planned().get(number, self._incarnation) == self._incarnation and (
                number < self._numbers
            ):
                self._unwanted.pop(number, None)
            elif now_s - self._unwanted.setdefault(number, now_s) >= SETTLE_S:
                leadership.pass_on()
            else:
                due.append(self._unwanted[number] + SETTLE_S - now_s)
        for number in self._unwanted.keys() - self._led.keys():
            del self._unwanted[number]
        return min(due, default=_LOOK_S)

    def _strays(self) -> list[tuple[int, int]]:
        """Groups whose key is ours, though nobody here leads them or is about to; since when."""
        return [
            (number, holder.create_revision)
            for number, holder in self._view.leaders.items()
            if self._ours(number)
            and number not in self._led
            and number not in self._busy
            and not (self._standing[number] and self._planned().get(number) == self._incarnation)
        ]
