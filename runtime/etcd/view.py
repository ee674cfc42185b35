"""What the coordinators of a cluster have written in etcd, as one of them sees it.

A snapshot replaces everything; an event of an older revision than the last one changes nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

_DIGITS_MAX: Final = 19
_MEMBERS: Final = "members/"
_LEADERS: Final = "leaders/"


class Member(msgspec.Struct, frozen=True):
    """A node's own key: what people call it, and whether it can do a leader's work."""

    name: str
    fit: bool = True


class Claim(msgspec.Struct, frozen=True):
    """The value of a leader's key, for people and for the plan; the lease is what proves it."""

    name: str
    incarnation: int


class Holder(msgspec.Struct, frozen=True):
    """Who leads a group of shards, as the key says it."""

    incarnation: int
    lease: int
    create_revision: int


class Entry(msgspec.Struct, frozen=True):
    """A key as etcd has it."""

    key: bytes
    value: bytes
    lease: int
    create_revision: int


class View:
    """Members by incarnation, and leaders by number."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.revision = 0
        """That of etcd up to which this is complete; 0 before the first snapshot."""
        self.members: dict[int, Member] = {}
        self.leaders: dict[int, Holder] = {}

    def member_key(self, incarnation: int) -> bytes:
        """The key that a node lives under."""
        return f"{self._prefix}{_MEMBERS}{incarnation}".encode()

    def leader_key(self, number: int) -> bytes:
        """The key that only a group's leader can hold."""
        return f"{self._prefix}{_LEADERS}{number}".encode()

    @property
    def fit(self) -> Mapping[int, str]:
        """Names of those who can lead, by incarnation."""
        return {who: member.name for who, member in self.members.items() if member.fit}

    @property
    def holders(self) -> Mapping[int, int]:
        """Incarnations of those who lead, by number."""
        return {number: holder.incarnation for number, holder in self.leaders.items()}

    def replace(self, entries: Iterable[Entry], revision: int) -> None:
        """Take a snapshot in; revisions that go back are those of an etcd that was emptied."""
        self.members, self.leaders, self.revision = {}, {}, revision
        for entry in entries:
            self._put(entry)

    def put(self, entry: Entry, revision: int) -> None:
        """A key was written at this revision."""
        if revision > self.revision:
            self._drop(entry.key)
            self._put(entry)

    def delete(self, key: bytes, revision: int) -> None:
        """A key was deleted, or went with its lease, at this revision."""
        if revision > self.revision:
            self._drop(key)

    def _put(self, entry: Entry) -> None:
        """Keep what is understood: the prefix may hold what another release, or a hand, wrote."""
        place = self._place(entry.key)
        if place is None:
            return
        kind, number = place
        try:
            if kind == _MEMBERS:
                self.members[number] = msgspec.json.decode(entry.value, type=Member)
            else:
                claim = msgspec.json.decode(entry.value, type=Claim)
                self.leaders[number] = Holder(claim.incarnation, entry.lease, entry.create_revision)
        except msgspec.MsgspecError:
            if kind == _LEADERS:
                # The key is there, so nobody can lead: not even one who does not understand it.
                self.leaders[number] = Holder(0, entry.lease, entry.create_revision)

    def _drop(self, key: bytes) -> None:
        if (place := self._place(key)) is not None:
            kind, number = place
            (self.members if kind == _MEMBERS else self.leaders).pop(number, None)

    def _place(self, key: bytes) -> tuple[str, int] | None:
        """Which kind of key, and its number; None for one that is not ours."""
        prefix = self._prefix.encode()
        for kind in (_MEMBERS, _LEADERS):
            start = prefix + kind.encode()
            digits = key.removeprefix(start)
            if key.startswith(start) and digits.isdigit() and len(digits) <= _DIGITS_MAX:
                return kind, int(digits)
        return None
