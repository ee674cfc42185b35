"""Fixtures: an etcd shared by the tests that leave it as it is, and one for each that hurts it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest

from tests.contract.coordinator.harness import Cluster, cluster
from tests.support.etcd import Etcd

OpenCluster = Callable[..., AbstractAsyncContextManager[Cluster]]


@pytest.fixture(scope="session")
def shared_etcd() -> Iterator[Etcd]:
    with Etcd() as server:
        yield server


@pytest.fixture(params=["sole", "etcd"])
def open_any(request) -> OpenCluster:
    """Give what opens a cluster on each coordinator in turn."""
    if request.param == "sole":
        return partial(cluster, None)
    return partial(cluster, request.getfixturevalue("shared_etcd"))


@pytest.fixture
def open_etcd(shared_etcd) -> OpenCluster:
    """Give what opens a cluster on an etcd that stays up."""
    return partial(cluster, shared_etcd)


@pytest.fixture
def own_etcd() -> Iterator[Etcd]:
    with Etcd() as server:
        yield server
