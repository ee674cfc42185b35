"""When a job is due: the one stored form of a schedule, and of the calendars it may name.

`protocols.schedule_text` reads what people write into it.
"""

from datetime import datetime
from typing import Final, Literal

import msgspec

Kind = Literal["cron", "every", "after", "at"]
Gap = Literal["next_valid", "skip"]
Fold = Literal["first", "second", "both"]
MisfirePolicy = Literal["execute_once", "catch_up", "skip"]

NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
CATCH_UP_MAX: Final = 500
"""The most instants that one job may ask to be caught up after an outage: half of a plan's rows."""


class Misfire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What becomes of instants first looked at more than `grace_s` after they were due.

    `within_s`: none older than this is run; `limit`: how many `catch_up` runs at most, the latest
    ones; `rate_per_s`: how many a second, None for as fast as they are claimed.
    """

    policy: MisfirePolicy = "execute_once"
    grace_s: float = 30.0
    within_s: float | None = None
    limit: int = 100
    rate_per_s: float | None = None


class Calendar(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Days on which instants count, by the patterns of `protocols.days`.

    Only `include`: those days are open. Only `exclude`: all others are. With both, a day that
    `include` names is open even if `exclude` names it too.
    """

    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()


class Schedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule, normalised; stored as JSON.

    `text` is what the user wrote (of a mapping, its essence), for people to recognise. Which of
    `cron`, `interval_s` and `at` is set follows from `kind`. `dst_gap` and `dst_fold` are None
    where cron(8) decides. `start` and `end` are the first and the last instant allowed.
    """

    kind: Kind
    text: str
    cron: str | None = None
    interval_s: float | None = None
    at: datetime | None = None
    timezone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    jitter_s: float = 0.0
    calendars: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    dst_gap: Gap | None = None
    dst_fold: Fold | None = None
    misfire: Misfire = Misfire()
