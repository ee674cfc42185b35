"""Wall clock and real time: at which instants a cron expression runs in a zone.

A zone's time line is cut into pieces of constant offset. Within a piece wall time and real time
run alike, so the whole rule lives at the seams:

* a wall time in a gap (skipped by the clock) has no instant. `next_valid` runs it once, at the
  end of the gap; `skip` does not run it;
* a wall time in a fold (shown twice) has two. `first`, `second` and `both` say which run.

By default a fixed time runs `next_valid` and `first`, and an expression whose minute or hour
field begins with `*` follows real time, which is `skip` and `both` (cron(8)).
"""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from actors.timer.cron import DAY_S, YEAR_MAX, Cron, compile_cron
from protocols.durations import shown

Gap = Literal["next_valid", "skip"]
Fold = Literal["first", "second", "both"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_YEAR: Final = 3
_ASKED_MAX: Final = 8
_NEAR_S: Final = 3 * DAY_S
"""Offsets differ by at most 26 hours, and no zone has ever changed its own twice in six days."""


class ZoneError(ValueError):
    """A text names no time zone; the message is one sentence."""


class Piece(NamedTuple):
    """A stretch of real time with one offset, and what its seams do to the wall clock.

    Instants are whole seconds since the epoch, walls are seconds on the zone's wall clock.

    Attributes:
        start: the first instant.
        end: the first instant after it.
        offset_s: wall minus real time.
        shown_before: walls below this were shown by an earlier piece already.
        shown_again: walls from this on will be shown again by a later piece.
    """

    start: int
    end: int
    offset_s: int
    shown_before: int
    shown_again: int


class Zone:
    """The time line of one IANA zone, in pieces of constant offset, computed year by year."""

    __slots__ = ("_info", "_piece", "_transitions", "name")

    def __init__(self, name: str, info: ZoneInfo) -> None:
        self.name = name
        self._info = info
        self._piece: Piece | None = None
        self._transitions: dict[int, list[tuple[int, int]]] = {}

    def piece_at(self, instant: int) -> Piece:
        """Return the piece that holds an instant (seconds since the epoch)."""
        piece = self._piece
        if piece is None or not piece.start <= instant < piece.end:
            self._piece = piece = self._find(instant)
        return piece

    def _find(self, instant: int) -> Piece:
        year = (EPOCH + timedelta(seconds=min(max(instant, _FIRST_S), _LAST_S - 1))).year
        # A piece ends with its year at the latest, so that no search looks further than that.
        starts: list[tuple[int, int]] = []
        for near in (year - 1, year, year + 1):
            starts += self._changes(near)
        ends = [start for start, _ in starts[1:]] + [_year_start(year + 2)]
        at = bisect_right(starts, instant, key=lambda start: start[0]) - 1
        start, offset = starts[at]
        end = ends[at]
        before = zip(starts[:at], ends, strict=False)
        shown = [stop + o for (_, o), stop in before if stop > start - _NEAR_S]
        again = [begin + o for begin, o in starts[at + 1 :] if begin < end + _NEAR_S]
        return Piece(
            start,
            end,
            offset,
            shown_before=max(shown, default=start + offset),
            shown_again=min(again, default=end + offset),
        )

    def _changes(self, year: int) -> list[tuple[int, int]]:
        """List (instant, offset from then on) of a year, its first second included."""
        known = self._transitions.get(year)
        if known is not None:
            return known
        start, end = _year_start(year), _year_start(year + 1)
        changes = [(start, self._offset(start))]
        # No zone changes twice within a day, so one look a day finds every change.
        for day in range(start, end, DAY_S):
            last_second = day + DAY_S - 1
            offset = self._offset(last_second)
            if offset != changes[-1][1]:
                changes.append((self._first_with(offset, day - 1, last_second), offset))
        self._transitions[year] = changes
        return changes

    def _first_with(self, offset: int, low: int, high: int) -> int:
        """Return the first instant in (low, high] that has an offset; `low` has another."""
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == offset:
                high = middle
            else:
                low = middle
        return high

    def _offset(self, instant: int) -> int:
        offset = (EPOCH + timedelta(seconds=instant)).astimezone(self._info).utcoffset()
        assert offset is not None, "a ZoneInfo always knows its offset"
        return offset.days * DAY_S + offset.seconds


class Timetable:
    """The instants of one cron expression in one zone, under one DST rule.

    Instants are whole seconds since the epoch; every search ends with the year 9998.
    """

    __slots__ = ("_asked", "_fold", "_next_valid", "cron", "zone")

    def __init__(self, cron: Cron, zone: Zone, *, gap: Gap | None, fold: Fold | None) -> None:
        self.cron = cron
        self.zone = zone
        if gap is None:
            gap = "skip" if cron.follows_real_time else "next_valid"
        self._next_valid = gap == "next_valid"
        self._fold = fold or ("both" if cron.follows_real_time else "first")
        self._asked: dict[int, int | None] = {}

    def next_after(self, instant: int) -> int | None:
        """Return the first instant after `instant`, or None where there is none."""
        # Jobs of one expression fall due together, and then all ask the same.
        asked = self._asked
        if instant in asked:
            return asked[instant]
        if len(asked) >= _ASKED_MAX:
            asked.clear()
        found = asked[instant] = self._search(instant + 1)
        return found

    def _search(self, instant: int) -> int | None:
        """Return the first instant at or after `instant`, or None."""
        while instant < _LAST_S:
            piece = self.zone.piece_at(instant)
            if instant == piece.start and self._gap_count(piece):
                return instant
            low, high = self._walls(piece)
            wall = self.cron.next_wall(max(low, instant + piece.offset_s) - 1)
            if wall is None:
                return None
            if wall < high:
                return wall - piece.offset_s
            instant = piece.end
            # A rare day is years ahead: skip the pieces between, unless a fold may show again
            # what this one has shown.
            if self.cron.next_wall(piece.end + piece.offset_s - _NEAR_S) == wall:
                instant = max(instant, wall - _NEAR_S)
        return None

    def last_until(self, instant: int) -> int | None:
        """Return the last instant at or before `instant`, or None where there is none."""
        while instant >= _FIRST_S:
            piece = self.zone.piece_at(instant)
            low, high = self._walls(piece)
            wall = self.cron.last_wall(min(high - 1, instant + piece.offset_s))
            if wall is not None and wall >= low:
                return wall - piece.offset_s
            if self._gap_count(piece):
                return piece.start
            if wall is None:
                return None
            instant = piece.start - 1
            if self.cron.last_wall(piece.start + piece.offset_s + _NEAR_S) == wall:
                instant = min(instant, wall + _NEAR_S)
        return None

    def between(self, after: int, until: int) -> Iterator[int]:
        """Yield the instants in (after, until], in order."""
        for piece, low, high, at_seam in self._spans(after, until):
            offset = piece.offset_s
            walls = self.cron.walls(low, high)
            if at_seam:
                yield piece.start
                if low - offset == piece.start:  # a match at the seam is the same instant
                    walls = (wall for wall in walls if wall - offset != piece.start)
            for wall in walls:
                yield wall - offset

    def count(self, after: int, until: int) -> int:
        """Count the instants in (after, until] without visiting them."""
        count = 0
        for piece, low, high, at_seam in self._spans(after, until):
            count += self.cron.count_walls(low, high)
            seam = piece.start + piece.offset_s
            if at_seam and not (low <= seam and self.cron.next_wall(seam - 1) == seam < high):
                count += 1
        return count

    def _spans(self, after: int, until: int) -> Iterator[tuple[Piece, int, int, bool]]:
        """Yield (piece, first wall, wall end, runs at its seam) for (after, until]."""
        instant = max(after + 1, _FIRST_S)
        end = min(until + 1, _LAST_S)
        while instant < end:
            piece = self.zone.piece_at(instant)
            low, high = self._walls(piece)
            low = max(low, instant + piece.offset_s)
            high = min(high, end + piece.offset_s)
            at_seam = instant == piece.start and self._gap_count(piece) > 0
            yield piece, low, high, at_seam
            instant = piece.end

    def _walls(self, piece: Piece) -> tuple[int, int]:
        """Return the walls [low, high) that run in a piece, by the fold rule."""
        low, high = piece.start + piece.offset_s, piece.end + piece.offset_s
        if self._fold == "first":
            low = max(low, piece.shown_before)
        elif self._fold == "second":
            high = min(high, piece.shown_again)
        return low, high

    def _gap_count(self, piece: Piece) -> int:
        """Count the matching walls that the clock skipped when a piece began, 0 under `skip`."""
        first = piece.start + piece.offset_s
        if not self._next_valid or first <= piece.shown_before:
            return 0
        return self.cron.count_walls(piece.shown_before, first)


@lru_cache(maxsize=1024)
def zone(name: str) -> Zone:
    """Return the time line of an IANA zone.

    Raises:
        ZoneError: there is no zone of that name.
    """
    try:
        return Zone(name, ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        # OSError: a folder of the zone database, or a name too long for a file.
        raise ZoneError(
            f"{shown(name)} is not a time zone: give an IANA name such as Europe/Berlin"
        ) from None


@lru_cache(maxsize=4096)
def timetable(
    expression: str, timezone: str = "UTC", *, gap: Gap | None = None, fold: Fold | None = None
) -> Timetable:
    """Return the instants of a cron expression in a zone; None leaves the DST rule to cron(8).

    Raises:
        CronError: the expression cannot be read.
        ZoneError: there is no zone of that name.
    """
    return Timetable(compile_cron(expression), zone(timezone), gap=gap, fold=fold)


def _year_start(year: int) -> int:
    return (date(year, 1, 1).toordinal() - EPOCH.toordinal()) * DAY_S


_FIRST_S: Final = _year_start(_FIRST_YEAR)
_LAST_S: Final = _year_start(YEAR_MAX - 1)
