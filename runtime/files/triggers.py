"""Reads `on:` of a job: the events, other jobs' ends and records of Kafka that trigger it."""

import re
from collections.abc import Mapping
from typing import Any, Final

from protocols.durations import shown
from protocols.errors import Problem
from protocols.jobs import JobSpec, KafkaTrigger, Trigger
from runtime.files.fields import (
    Fields,
    Refused,
    choice,
    filled,
    job_name,
    matching,
    name,
    plain,
    short,
    text,
)
from runtime.files.places import Path

TRIGGERS_MAX: Final = 100
GROUP_CHARS_MAX: Final = 255
_TOPIC: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
"""What Kafka takes as a topic's name (org.apache.kafka.common.internals.Topic)."""
_topic = matching(_TOPIC, "a topic's name: 1 to 249 letters, digits, `.`, `_` or `-`")
_NO_KAFKA: Final = (
    "this node has no Kafka, so no record could ever trigger the job: apply it through a node of "
    "a cluster (`kafka.bootstrap_servers`), or take the trigger out"
)


def read_triggers(fields: Fields) -> tuple[Trigger, ...]:
    """The triggers of a job: one mapping, or a list of them."""
    raw = fields.raw("on")
    if raw is None:
        return ()
    many = isinstance(raw, list | tuple)
    if many and len(raw) > TRIGGERS_MAX:
        fields.refuse(
            ("on",), f"at most {TRIGGERS_MAX} triggers are allowed; here are {len(raw):,}"
        )
        return ()
    found = []
    for i, one in enumerate(raw if many else [raw]):
        path = (*fields.path, "on", i) if many else (*fields.path, "on")
        found.append(_trigger(one, path, fields.problems))
    return tuple(trigger for trigger in found if trigger is not None)


def kafka_problems(spec: JobSpec) -> list[Problem]:
    """What a node without Kafka has to say against a job; paths begin with the field."""
    return [
        Problem(("on", i, "kafka"), _NO_KAFKA)
        for i, trigger in enumerate(spec.on)
        if trigger.kafka is not None
    ]


def _trigger(raw: object, path: Path, problems: list[Problem]) -> Trigger | None:
    inner = Fields(
        raw, path, problems, what="{event: NAME}, {job: ID, state: STATE} or {kafka: {topic: NAME}}"
    )
    event = inner.take("event", name, None)
    job = inner.take("job", job_name, None)
    kafka = _kafka(inner)
    state = inner.take("state", choice("succeeded", "dead", "cancelled", "skipped"), None)
    matches: dict[str, Any] = inner.take("filter", _filter, {})
    inner.close()
    if not isinstance(raw, Mapping):
        return None
    if sum(word in inner for word in ("event", "job", "kafka")) != 1:
        inner.refuse((), "`on` names one of event, job and kafka")
        return None
    if "job" not in inner and state is not None:
        inner.refuse(("state",), "only a job has a state")
    return Trigger(event=event, job=job, kafka=kafka, state=state or "succeeded", filter=matches)


def _kafka(fields: Fields) -> KafkaTrigger | None:
    raw = fields.raw("kafka")
    if raw is None:
        return None
    inner = Fields(
        raw, (*fields.path, "kafka"), fields.problems, what="{topic: NAME, group: NAME, key: KEY}"
    )
    topic = inner.take("topic", _topic, "")
    group = inner.take("group", _group, None)
    key = inner.take("key", short, None)
    inner.close()
    if "topic" not in inner and isinstance(raw, Mapping):
        inner.refuse((), "a Kafka trigger needs its topic")
    return KafkaTrigger(topic=topic, group=group, key=key)


def _group(value: object) -> str:
    found = filled(value)
    if len(found) > GROUP_CHARS_MAX or not found.isprintable():
        raise Refused(
            f"{shown(value)} is not a consumer group: 1 to {GROUP_CHARS_MAX} printable characters"
        )
    return text(found)


def _filter(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"{shown(value)} is not a mapping of dotted paths to values")
    return dict(plain(value))
