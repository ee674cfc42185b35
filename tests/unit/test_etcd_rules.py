"""Rules of the coordinator over etcd that need no etcd: addresses, releases, pauses, the view."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import InvalidError
from runtime.etcd.client import trouble_of
from runtime.etcd.session import pause_s
from runtime.etcd.settings import EtcdSettings, endpoints
from runtime.etcd.view import Entry, Holder, Member, View


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:2379", "http://127.0.0.1:2379"),
        ("etcd.example", "http://etcd.example:2379"),
        ("https://etcd.example:4443", "https://etcd.example:4443"),
        ("https://etcd.example/", "https://etcd.example:2379"),
        ("http://[::1]:2379", "http://[::1]:2379"),
    ],
)
def test_endpoints_are_read(text, url):
    assert [e.url for e in endpoints(EtcdSettings(endpoints=(text,)))] == [url]


def test_every_wrong_endpoint_is_told_by_its_place():
    texts = ("ftp://x", "good:1", "http://u:secret@host", "http://host/v3", "host:port", "")
    with pytest.raises(InvalidError) as wrong:
        endpoints(EtcdSettings(endpoints=texts))
    assert [problem.path[-1] for problem in wrong.value.problems] == [0, 2, 3, 4, 5]
    assert "secret" not in str(wrong.value)
    with pytest.raises(InvalidError, match="at least one"):
        endpoints(EtcdSettings(endpoints=()))


def test_settings_show_no_password():
    settings = EtcdSettings(endpoints=("a:1",), user="u", password="hush")
    assert "hush" not in f"{settings} {settings!r}"


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("3.4.22", False),
        ("3.4.23", False),
        ("3.4.3", True),
        ("3.5.0", True),
        ("3.5.5", True),
        ("3.5.6", False),
        ("3.6.5", False),
    ],
)
def test_releases_that_lose_data_or_are_too_old_are_known(version, known):
    assert (trouble_of(version) is not None) is known


@given(st.integers(1, 10_000))
def test_pauses_grow_to_two_seconds_and_are_never_nothing(failures):
    assert 0.05 <= pause_s(failures) <= 2.0


def entry(key: bytes, value: bytes, revision: int = 1) -> Entry:
    return Entry(key=key, value=value, lease=7, create_revision=revision)


MEMBER = b'{"name":"a","fit":true}'
LEADER = b'{"name":"a","incarnation":3}'


def test_a_view_follows_puts_and_deletes_and_ignores_what_is_older():
    view = View("/c/")
    view.replace([entry(b"/c/members/3", MEMBER), entry(b"/c/leaders/0", LEADER)], 10)
    assert view.members == {3: Member("a", fit=True)}
    assert view.leaders == {0: Holder(3, 7, 1)}
    view.delete(b"/c/leaders/0", 10)
    assert view.leaders
    view.delete(b"/c/leaders/0", 11)
    assert not view.leaders
    view.put(entry(b"/c/leaders/0", LEADER, 12), 12)
    view.put(entry(b"/c/members/3", b'{"name":"a","fit":false}'), 12)
    assert view.holders == {0: 3}
    assert view.fit == {}
    view.replace([], 2)
    assert (view.members, view.leaders, view.revision) == ({}, {}, 2)


@given(st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=30))))
def test_a_view_takes_in_any_bytes(entries):
    view = View("/c/")
    view.replace([entry(b"/c/" + key, value) for key, value in entries], 1)
    view.replace([entry(b"/c/leaders/" + key, value) for key, value in entries], 1)
    assert all(0 <= number < 10**19 for number in view.holders)


def test_a_leader_s_key_that_is_not_understood_still_holds_its_group():
    view = View("/c/")
    view.replace([entry(b"/c/leaders/4", b"\xff"), entry(b"/c/members/4", b"\xff")], 1)
    assert view.holders == {4: 0}
    assert view.members == {}
    view.replace([entry(b"/c/leaders/5", b"{}"), entry(b"/c/leaders/5x", LEADER)], 1)
    assert view.holders == {5: 0}


def test_keys_of_two_clusters_are_told_apart():
    first, second = View(EtcdSettings(endpoints=(), cluster="a").prefix), View("/ab/")
    first.replace([entry(second.member_key(1), MEMBER)], 1)
    assert not first.members
    first.replace([entry(first.member_key(1), MEMBER), entry(first.leader_key(2), LEADER)], 1)
    assert (set(first.members), set(first.leaders)) == ({1}, {2})
