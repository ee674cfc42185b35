"""Figures of a node as one of several: what it leads, what crossed, what was refused and lost."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from actors.records import Counts
from protocols.messages import Hint
from runtime.services import Services

_HINTS: Final = frozenset(
    f"{kind.__module__}:{kind.__qualname__}" for kind in Hint.__subclasses__()
)


def cluster_metrics(node: Services) -> Iterator[Metric]:
    """What costs nothing to read; the counters of messages begin anew with each incarnation."""
    yield GaugeMetricFamily(
        "tickwright_leaderships_led_count",
        "Groups of shards whose timer runs on this node.",
        len(node.leads),
    )
    yield from _writes(node)
    yield from _lateness(node)
    if node.member is not None:
        yield from _messages(node)
        if node.member.records is not None:
            yield _triggers(node.member.records.counts)


def _writes(node: Services) -> Iterator[Metric]:
    figures = node.store.figures
    for name, text, value in (
        (
            "fenced_writes",
            "Statements refused since their leader's epoch was over.",
            figures.fenced,
        ),
        ("stale_ends", "Ends of attempts refused since their token was spent.", figures.stale),
        (
            "executions_lost",
            "Executions of ended nodes that this node declared lost.",
            figures.lost,
        ),
    ):
        yield CounterMetricFamily(f"tickwright_{name}_total", text, value=value)


def _lateness(node: Services) -> Iterator[Metric]:
    late = HistogramMetricFamily(
        "tickwright_start_lateness_seconds",
        "From an execution's instant to the first line of its first attempt.",
        labels=["pool"],
    )
    for pool, executor in node.executors.items():
        figures = executor.lateness
        late.add_metric([pool], buckets=figures.buckets(), sum_value=figures.sum_s)
    yield late


def _messages(node: Services) -> Iterator[Metric]:
    assert node.member is not None
    counts = node.member.transport.counts()
    records = CounterMetricFamily(
        "tickwright_transport_records_total",
        "Records for other nodes and from them, by what became of them.",
        labels=["fate"],
    )
    for fate in ("sent", "received", "rejected", "expired", "lost"):
        records.add_metric([fate], getattr(counts, fate))
    yield records
    yield GaugeMetricFamily(
        "tickwright_transport_waiting_count", "Records that wait to leave.", counts.waiting
    )
    if node.member.remoting is None:
        return
    traffic = node.member.remoting.traffic
    messages = CounterMetricFamily(
        "tickwright_remote_messages_total",
        "Messages to actors of other nodes and from them, by Kafka.",
        labels=["direction", "kind", "type"],
    )
    hints = CounterMetricFamily(
        "tickwright_hints_total",
        "Hints to other nodes and from them, by Kafka.",
        labels=["direction", "hint"],
    )
    for direction, crossed in (("sent", traffic.sent), ("received", traffic.received)):
        for (kind, name), count in crossed.items():
            messages.add_metric([direction, str(kind), name], count)
            if name in _HINTS:
                hints.add_metric([direction, name.rpartition(":")[2]], count)
    yield from (messages, hints)
    yield _by_reason(
        "tickwright_remote_refused_total",
        "Messages to actors of other nodes that their sender was refused.",
        traffic.refused,
    )
    yield _by_reason(
        "tickwright_remote_dropped_total",
        "Messages from other nodes that went no further, by why.",
        traffic.dropped,
    )


def _triggers(counts: Counts) -> Metric:
    family = CounterMetricFamily(
        "tickwright_kafka_triggers_total",
        "Records of Kafka that this node read for its jobs, and what became of them.",
        labels=["fate"],
    )
    for fate, count in msgspec.structs.asdict(counts).items():
        family.add_metric(["read" if fate == "records" else fate], count)
    return family


def _by_reason(name: str, text: str, counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["reason"])
    for reason, count in counts.items():
        family.add_metric([reason], count)
    return family
