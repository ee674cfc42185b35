"""Fixtures: an etcd of a test's own."""

from collections.abc import Iterator

import pytest

from tests.support.etcd import Etcd


@pytest.fixture
def etcd() -> Iterator[Etcd]:
    with Etcd() as server:
        yield server
