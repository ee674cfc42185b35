"""A node's figures for Prometheus, each in a registry of its own; names end in their unit.

What can be counted where it happens is read from there at each scrape; nothing here costs
anything between two scrapes but the measuring of the loop's lag.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

import anyio
import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from protocols.errors import TickwrightError
from protocols.views import StatsView
from runtime.kernel.introspection import ActorInfo
from runtime.metrics_of_cluster import cluster_metrics
from runtime.postgres.operations.session import transact
from runtime.postgres.operations.stats import read_stats
from runtime.services import Services

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LAG_EVERY_S: Final = 0.5
_LAGS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_FRESH_S: Final = 1.0
_WITHIN_S: Final = 2.0
_FINISHED: Final = "finished_"


class Metrics(Collector):
    """Reads a node at each scrape.

    Args:
        node: whose figures they are.
    """

    def __init__(self, node: Services) -> None:
        self._node = node
        self._process = psutil.Process()
        self._stats: StatsView | None = None
        self._read_at = -_FRESH_S
        self._lock = anyio.Lock()
        self.registry = CollectorRegistry()
        self._lags = [0] * (len(_LAGS_S) + 1)
        self._lags_sum_s = 0.0
        self.registry.register(self)

    async def measure(self) -> None:
        """Measure the loop's lag, for ever."""
        while True:
            wanted = time.monotonic() + LAG_EVERY_S
            await anyio.sleep(LAG_EVERY_S)
            lag_s = max(0.0, time.monotonic() - wanted)
            self._lags[bisect_left(_LAGS_S, lag_s)] += 1
            self._lags_sum_s += lag_s

    async def scrape(self) -> bytes:
        """All figures as text; those of the database are left out while it is away."""
        async with self._lock:
            if time.monotonic() - self._read_at >= _FRESH_S:
                self._stats = await self._read()
                self._read_at = time.monotonic()
        return generate_latest(self.registry)

    async def _read(self) -> StatsView | None:
        now = self._node.clock.now()
        with anyio.move_on_after(_WITHIN_S):
            try:
                return await transact(
                    self._node.keeping, "", lambda conn: read_stats(conn, now=now)
                )
            except TickwrightError:
                return None
        return None

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: the node may not have begun when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Everything that is read from the node as it stands now."""
        yield from self._executions()
        yield from self._actors()
        yield from self._locks()
        yield from self._outbox()
        yield from cluster_metrics(self._node)
        yield from self._health()
        yield from self._resources()
        if self._stats is not None:
            yield from self._books(self._stats)

    def _executions(self) -> Iterator[Metric]:
        ended = CounterMetricFamily(
            "tickwright_attempts_ended_total",
            "Attempts that ended on this node, by how.",
            labels=["pool", "state"],
        )
        held = GaugeMetricFamily(
            "tickwright_pool_running_count", "Attempts under way on this node.", labels=["pool"]
        )
        slots = GaugeMetricFamily(
            "tickwright_pool_slots_count", "Attempts that may run at once.", labels=["pool"]
        )
        loops = CounterMetricFamily(
            "tickwright_held_loops_total",
            "Times that a task held its host's loop for over a second.",
            labels=["pool"],
        )
        killed = CounterMetricFamily(
            "tickwright_hosts_killed_total", "Job hosts that had to be killed.", labels=["pool"]
        )
        for pool, executor in self._node.executors.items():
            figures = executor.statistics()
            held.add_metric([pool], figures["held"])
            slots.add_metric([pool], self._node.settings.pools.get(pool, 0))
            loops.add_metric([pool], figures["held_loops"])
            killed.add_metric([pool], figures["hosts_killed"])
            for name, count in figures.items():
                if name.startswith(_FINISHED):
                    ended.add_metric([pool, name.removeprefix(_FINISHED)], count)
        yield from (ended, held, slots, loops, killed)

    def _actors(self) -> Iterator[Metric]:
        figures = self._node.system.statistics()
        letters = CounterMetricFamily(
            "tickwright_actor_dead_letters_total",
            "Messages that no actor handled, by why.",
            labels=["reason"],
        )
        for reason, count in figures.dead_letters.items():
            letters.add_metric([reason], count)
        depth = GaugeMetricFamily(
            "tickwright_mailbox_depth_count", "Messages that wait in a mailbox.", labels=["actor"]
        )
        restarts = CounterMetricFamily(
            "tickwright_actor_restarts_total", "Times an actor was restarted.", labels=["actor"]
        )
        for actor in _all(figures.tree):
            depth.add_metric([actor.path], actor.depth)
            restarts.add_metric([actor.path], actor.restarts)
        yield from (letters, depth, restarts)
        yield CounterMetricFamily(
            "tickwright_ask_timeouts_total",
            "Questions to actors that were not answered in time.",
            value=figures.ask_timeouts,
        )

    def _locks(self) -> Iterator[Metric]:
        figures = self._node.locks.figures()
        yield HistogramMetricFamily(
            "tickwright_lock_wait_seconds",
            "How long tasks of this node waited for the locks they took.",
            buckets=figures.buckets(),
            sum_value=figures.waited_s,
        )
        yield CounterMetricFamily(
            "tickwright_locks_lost_total",
            "Locks lost under their holders, which were ended for it.",
            value=figures.lost,
        )
        yield GaugeMetricFamily(
            "tickwright_locks_held_count", "Locks that tasks of this node hold.", figures.held
        )
        yield GaugeMetricFamily(
            "tickwright_locks_waiting_count",
            "Times a task of this node waits for a lock.",
            figures.waiting,
        )

    def _outbox(self) -> Iterator[Metric]:
        status = self._node.outbox
        if status is None:
            return
        yield GaugeMetricFamily(
            "tickwright_outbox_publishing_count",
            "1 where it is this node that tells Kafka what happened.",
            int(status.publishing),
        )
        yield GaugeMetricFamily(
            "tickwright_outbox_behind_count",
            "Events that Kafka has not been told of; counted up to ten thousand.",
            status.events_behind,
        )
        yield GaugeMetricFamily(
            "tickwright_outbox_behind_seconds",
            "Age of the oldest event that Kafka has not been told of.",
            status.behind_s,
        )
        yield CounterMetricFamily(
            "tickwright_outbox_published_total",
            "Changes of executions that this node told Kafka of.",
            value=status.published,
        )
        yield CounterMetricFamily(
            "tickwright_outbox_dropped_total",
            "Events that grew too old before Kafka could be told of them, in the whole cluster.",
            value=status.dropped,
        )

    def _health(self) -> Iterator[Metric]:
        view = self._node.health.view()
        yield GaugeMetricFamily("tickwright_ready_count", "1 where it is ready.", int(view.ready))
        parts = GaugeMetricFamily(
            "tickwright_degraded_count",
            "1 for each part that is not well.",
            labels=["part", "level"],
        )
        for trouble in view.troubles:
            parts.add_metric([trouble.part, trouble.level], 1)
        yield parts
        for_s = GaugeMetricFamily(
            "tickwright_degraded_seconds",
            "For how long a part has not been well; 0 while it is.",
            labels=["part"],
        )
        since = {trouble.part: trouble.since for trouble in view.troubles}
        now = self._node.clock.now()
        known = ("database", "clock", *(("etcd", "kafka") if self._node.settings.clustered else ()))
        for part in dict.fromkeys((*known, *since)):
            for_s.add_metric([part], max(0.0, (now - since.get(part, now)).total_seconds()))
        yield for_s
        for name, value in (("tick", view.last_tick_s), ("dispatch", view.last_dispatch_s)):
            if value is not None:
                yield GaugeMetricFamily(
                    f"tickwright_last_{name}_age_seconds", f"Since the last {name}.", value
                )
        yield GaugeMetricFamily(
            "tickwright_clock_offset_seconds",
            "This machine's wall clock less the database's.",
            self._node.clock.offset_s,
        )

    def _resources(self) -> Iterator[Metric]:
        edges = [*map(str, _LAGS_S), "+Inf"]
        yield HistogramMetricFamily(
            "tickwright_loop_lag_seconds",
            "How much later than asked the node's loop woke a sleeper.",
            buckets=list(zip(edges, accumulate(self._lags), strict=True)),
            sum_value=self._lags_sum_s,
        )
        with self._process.oneshot():
            cpu, memory = self._process.cpu_times(), self._process.memory_info()
        yield CounterMetricFamily(
            "tickwright_process_cpu_seconds_total",
            "CPU time of the node's process, without its job hosts.",
            value=cpu.user + cpu.system,
        )
        yield GaugeMetricFamily(
            "tickwright_process_resident_bytes", "Memory of the node's process.", memory.rss
        )

    def _books(self, stats: StatsView) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(
            "tickwright_executions_count",
            "Executions that are not final, by state; each counted up to a hundred thousand.",
            labels=["state"],
        )
        for state, count in stats.executions.items():
            waiting.add_metric([state], count)
        yield waiting
        oldest = GaugeMetricFamily(
            "tickwright_oldest_ready_seconds",
            "How long what is ready longest has waited.",
            labels=["pool"],
        )
        for pool, seconds in stats.oldest_ready_s.items():
            oldest.add_metric([pool], seconds)
        yield oldest
        yield GaugeMetricFamily(
            "tickwright_house_paused_count", "1 while the whole house is paused.", int(stats.paused)
        )
        epochs = GaugeMetricFamily(
            "tickwright_leadership_epoch_count",
            "The epoch of a leadership.",
            labels=["leadership"],
        )
        leads = GaugeMetricFamily(
            "tickwright_leadership_held_count",
            "1 where this node holds the leadership.",
            labels=["leadership"],
        )
        for one in stats.leaderships:
            epochs.add_metric([str(one.number)], one.epoch)
            held = one.incarnation == self._node.incarnation
            leads.add_metric([str(one.number)], int(held))
        yield from (epochs, leads)


def _all(info: ActorInfo) -> Iterator[ActorInfo]:
    yield info
    for child in info.children:
        yield from _all(child)
