"""The client on a real etcd: etcd3-py's calls, another member where one fails, logging in."""

import asyncio

import anyio
import pytest
import requests
from etcd3 import AioClient
from etcd3.errors import ErrCompacted, ErrLeaseNotFound

from protocols.errors import UnavailableError
from runtime.etcd import EtcdCoordinator, EtcdSettings
from runtime.etcd.client import EtcdClient
from tests.support.etcd import Wire, free_port

pytestmark = pytest.mark.asyncio


def client_of(*endpoints: str, **more) -> EtcdClient:
    return EtcdClient(EtcdSettings(endpoints=endpoints, **more))


async def put(client, key=b"/k", value=b"v"):
    return await client.reach(lambda: client.put(key, value))


async def value_of(client, key=b"/k"):
    found = await client.reach(lambda: client.range(key))
    return found.kvs[0].value if found.kvs else None


async def lock_up(etcd):
    """From here on etcd asks who it is."""
    async with client_of(etcd.endpoint) as root:
        for call in (
            lambda: root.user_add("root", "secret"),
            lambda: root.role_add("root"),
            lambda: root.user_grant_role("root", "root"),
            root.auth_enable,
        ):
            await root.reach(call)


async def test_leases_keys_and_transactions_go_through_etcd3_py(etcd, monkeypatch):
    asked = set()
    real = AioClient.call_rpc

    def spy(self, method, *args, **kwargs):
        asked.add(method)
        return real(self, method, *args, **kwargs)

    monkeypatch.setattr(AioClient, "call_rpc", spy)
    coordinator = EtcdCoordinator(EtcdSettings(endpoints=(etcd.endpoint,)), name="a", incarnation=1)
    coordinator.cover(1)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(coordinator.run)
            leadership = await coordinator.campaign(0)
            await leadership.resign()
            group.cancel_scope.cancel()
    assert asked >= {"/lease/grant", "/kv/lease/revoke", "/kv/put", "/kv/range", "/kv/txn"}


async def test_the_version_is_asked_for_without_a_blocking_request(etcd, monkeypatch):
    def blocks(*_args, **_kwargs):
        raise AssertionError("a blocking request")

    monkeypatch.setattr(requests, "get", blocks)
    monkeypatch.setattr(requests.Session, "request", blocks)
    async with client_of(etcd.endpoint) as client:
        version = await client.learn_version()
        assert version.startswith("3.")
        assert client.api_prefix == "/v3"


async def test_a_lease_is_renewed_once_per_call_and_told_gone_when_it_is(etcd):
    async with client_of(etcd.endpoint) as client:
        granted = await client.reach(lambda: client.lease_grant(7))
        assert await client.keep_alive(granted.ID) == granted.TTL == 7
        await client.reach(lambda: client.lease_revoke(granted.ID))
        assert await client.keep_alive(granted.ID) == 0
        with pytest.raises(ErrLeaseNotFound):
            await client.reach(lambda: client.put(b"/k", b"v", lease=granted.ID))


async def test_a_watch_tells_all_from_its_revision_on(etcd):
    async with client_of(etcd.endpoint) as client:
        await put(client, b"/w/1", b"x" * 200_000)
        await put(client, b"/other", b"no")
        await client.reach(lambda: client.delete_range(b"/w/1"))
        seen = []
        with anyio.fail_after(5):
            async with client.watch(b"/w/", start=2, quiet_s=3) as answers:
                async for told in answers:
                    seen += [(e.type, e.kv.key, len(e.kv.value)) for e in told.events]
                    if len(seen) == 2:
                        break
                await answers.aclose()
        assert seen == [("PUT", b"/w/1", 200_000), ("DELETE", b"/w/1", 0)]


async def test_a_watch_of_what_was_compacted_says_so_and_a_quiet_one_ends(etcd):
    async with client_of(etcd.endpoint) as client:
        for _ in range(3):
            await put(client)
        await client.reach(lambda: client.compact(3))
        with anyio.fail_after(5):
            async with client.watch(b"/", start=1, quiet_s=3) as answers:
                told = [await anext(answers), await anext(answers)][-1]
                await answers.aclose()
            assert told.canceled
            assert told.compact_revision == 3
            async with client.watch(b"/", start=9, quiet_s=0.3) as answers:
                assert (await anext(answers)).created
                with pytest.raises(TimeoutError):
                    await anext(answers)
        with pytest.raises(ErrCompacted):
            await client.reach(lambda: client.range(b"/k", revision=1))


async def test_another_member_is_asked_where_one_is_dead_or_does_not_answer(etcd):
    dead = f"127.0.0.1:{free_port()}"
    async with Wire(etcd.port) as mute, client_of(dead, mute.endpoint, etcd.endpoint) as client:
        await put(client)
        assert client.baseurl == f"http://{mute.endpoint}"
        mute.hold()
        assert await value_of(client) == b"v"
        assert client.baseurl == etcd.endpoint


async def test_where_no_member_answers_the_last_reason_is_told():
    dead = f"127.0.0.1:{free_port()}"
    async with client_of(dead) as client:
        with pytest.raises(UnavailableError, match=f"etcd cannot be reached: http://{dead}: "):
            await put(client)


async def test_what_answers_but_is_no_etcd_is_unavailable():
    async def speak(reader, writer):
        await reader.readuntil(b"}")
        body = b"<html>502</html>"
        head = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"
        writer.write(head + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, client_of(f"127.0.0.1:{port}") as client:
        with pytest.raises(UnavailableError, match="502"):
            await put(client)
        with pytest.raises(UnavailableError):
            await client.keep_alive(1)


async def test_a_user_logs_in_and_again_when_the_token_is_forgotten(etcd):
    await lock_up(etcd)
    async with client_of(etcd.endpoint) as nobody:
        with pytest.raises(UnavailableError, match="etcd refuses: etcdserver: user name is empty"):
            await put(nobody)
    async with client_of(etcd.endpoint, user="root", password="wrong") as stranger:
        with pytest.raises(UnavailableError, match="authentication failed") as refused:
            await put(stranger)
        assert "wrong" not in str(refused.value)
    async with client_of(etcd.endpoint, user="root", password="secret") as user:
        await put(user)
        granted = await user.reach(lambda: user.lease_grant(60))
        user.token = "long.forgotten"
        assert await value_of(user) == b"v"
        assert user.token not in (None, "long.forgotten")
        assert await user.keep_alive(granted.ID) == 60


async def test_a_user_is_let_in_where_etcd_asks_for_none(etcd):
    async with client_of(etcd.endpoint, user="root", password="secret") as user:
        await put(user)
        assert user.token is None
        assert await value_of(user) == b"v"


async def test_leaders_are_elected_for_a_user_over_a_restart(etcd):
    await lock_up(etcd)
    settings = EtcdSettings(endpoints=(etcd.endpoint,), user="root", password="secret", ttl_s=20)
    first, second = [EtcdCoordinator(settings, name="n", incarnation=number) for number in (1, 2)]
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for coordinator in (first, second):
                coordinator.cover(1)
                group.start_soon(coordinator.run)
            leadership = await first.campaign(0)
            await anyio.to_thread.run_sync(etcd.restart)
            await leadership.resign()
            assert (await second.campaign(0)).trusted()
            group.cancel_scope.cancel()


async def test_a_leader_outlives_the_member_that_it_spoke_to(etcd):
    async with Wire(etcd.port) as first, Wire(etcd.port) as second:
        settings = EtcdSettings(endpoints=(first.endpoint, second.endpoint), ttl_s=5)
        told: list[str | None] = []
        coordinator = EtcdCoordinator(settings, name="n", incarnation=1, on_state=told.append)
        coordinator.cover(1)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(coordinator.run)
                leadership = await coordinator.campaign(0)
                for wire in (first, second):
                    wire.hold()
                    held_ns = coordinator._session.trusted_until_ns
                    while coordinator._session.trusted_until_ns <= held_ns:
                        assert leadership.trusted()
                        await anyio.sleep(0.01)
                    wire.cut()
                    wire.heal()
                group.cancel_scope.cancel()
        assert told == []
