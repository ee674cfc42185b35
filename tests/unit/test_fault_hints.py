"""What the harness takes for hints that went by Kafka: those of ready work, and nothing beside."""

from scripts.faults.hints import told_ready

METRICS = """\
# HELP tickwright_hints_total Hints to other nodes and from them, by Kafka.
tickwright_remote_messages_total{direction="sent",kind="tell",type="protocols.messages:Ready"} 7.0
tickwright_kafka_records_total{fate="sent"} 99.0
tickwright_hints_total{direction="received",hint="Ready"} 11.0
tickwright_hints_total{direction="sent",hint="FreeSlots"} 12.0
tickwright_hints_total{direction="sent",hint="Ready"} 5.0
"""


def test_only_what_was_told_of_ready_work_counts():
    assert told_ready(METRICS) == 5.0
    assert told_ready("") == 0.0
