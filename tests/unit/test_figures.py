"""What the metrics count, and how little it takes."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.records import Counts
from protocols.messages import Ready
from protocols.ports.transport import TransportCounts
from runtime.hosts.lateness import Lateness
from runtime.kernel.remote.counters import Traffic
from runtime.metrics_of_cluster import cluster_metrics
from runtime.postgres.figures import StoreFigures

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


@pytest.mark.parametrize("late_ns", [-5, 0, 1, 1 << 20, 3_000_000, 10**12, 1 << 62])
def test_each_start_is_in_the_first_bucket_that_is_late_enough(late_ns: int):
    late = Lateness()
    late.add(late_ns)
    buckets = late.buckets()
    assert [edge for edge, _ in buckets][-1] == "+Inf"
    for edge, count in buckets:
        assert count == (late_ns < float(edge) * 1e9), edge
    assert late.sum_s == max(0, late_ns) / 1e9


def test_all_that_a_member_counts_is_documented_and_hints_are_told_apart():
    traffic = Traffic()
    hint = f"{Ready.__module__}:{Ready.__qualname__}"
    traffic.sent["tell", hint] += 2
    traffic.sent["ask", "user.module:Question"] += 1
    traffic.refused["full"] += 1
    traffic.dropped["late"] += 1
    figures = StoreFigures()
    figures.lose(3)
    node = SimpleNamespace(
        leads={0: 7},
        store=SimpleNamespace(figures=figures),
        executors={},
        member=SimpleNamespace(
            transport=SimpleNamespace(counts=lambda: TransportCounts(sent=3)),
            remoting=SimpleNamespace(traffic=traffic),
            records=SimpleNamespace(counts=Counts(triggered=2)),
        ),
    )
    families = list(cluster_metrics(node))
    for family in families:
        suffix = "_total" if family.type == "counter" else ""
        assert re.search(rf"`{family.name}{suffix}`", DOCUMENTED), family.name
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples["tickwright_hints_total", "sent", "Ready"] == 2
    assert ("tickwright_hints_total", "sent", "Question") not in samples
    assert samples["tickwright_executions_lost_total",] == 3
    assert samples["tickwright_leaderships_led_count",] == 1
