"""Sessions in a Redis: its keys, how commands travel, and the addresses that name it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from app.sessions import open_store
from app.sessions.redis import RedisStore
from app.sessions.store import SessionRecord
from benchmarks.redis_server import DURABLE, RedisServer
from model.errors import ConfigurationError
from tests.app.sessions.faults import refused
from tests.app.sessions.proxy import Proxy, proxy_to
from tests.app.sessions.records import START, TTL, Clock, answer, opened, record, redis_store
from tests.commands import required
from tests.redis_server import redis_server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def proxy(redis: RedisServer) -> AsyncIterator[Proxy]:
    async with proxy_to(redis.socket) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy, clock: Clock) -> AsyncIterator[RedisStore]:
    """One open store, behind the proxy."""
    store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", timeout=5.0, now=clock)
    await store.open()
    yield store
    await store.close()


async def test_keys_begin_with_the_name_and_format_of_the_store_and_expire(
    store: RedisStore, redis: RedisServer
) -> None:
    await store.create(record(), answer(expires_at=START + 9 * TTL))
    assert sorted(redis.ask("KEYS", "*")) == [
        b"pru:1:answer:key",
        b"pru:1:answers",
        b"pru:1:session:a",
        b"pru:1:sessions",
    ]
    assert TTL - 20 < redis.ask("PTTL", "pru:1:session:a") / 1000 <= TTL
    assert 9 * TTL - 20 < redis.ask("PTTL", "pru:1:answer:key") / 1000 <= 9 * TTL
    assert await store.replace(record(version=2, expires_at=START + 5 * TTL))
    assert 5 * TTL - 20 < redis.ask("PTTL", "pru:1:session:a") / 1000 <= 5 * TTL


async def test_redis_removes_what_is_expired_by_itself_and_a_purge_what_is_left_of_it(
    store: RedisStore, redis: RedisServer, clock: Clock
) -> None:
    await store.create(record(expires_at=START + 0.02), answer(expires_at=START + 0.02))
    await store.create(record("b"))
    await asyncio.sleep(0.1)
    assert redis.ask("EXISTS", "pru:1:session:a", "pru:1:answer:key") == 0
    clock.time = START + 1
    assert (await store.count(), await store.purge(), await store.count()) == (1, 1, 1)
    assert sorted(redis.ask("KEYS", "*")) == [b"pru:1:session:b", b"pru:1:sessions"]


async def test_a_deleted_or_replaced_session_leaves_nothing_behind(store: RedisStore, redis: RedisServer) -> None:
    await store.create(record())
    for version in range(2, 50):
        assert await store.replace(record(version=version))
    assert redis.ask("ZCARD", "pru:1:sessions") == 1
    assert await store.delete("a")
    assert redis.ask("DBSIZE") == 0


async def test_a_session_that_is_not_personal_is_a_hash_as_servers_before_wrote_it(
    store: RedisStore, redis: RedisServer
) -> None:
    await store.create(replace(record(), personal=b"learnt"))
    assert redis.ask("HGET", "pru:1:session:a", "personal") == b"learnt"
    assert await store.replace(record(version=2))
    names = {field.name for field in fields(SessionRecord)} | {"checksum"}
    assert {name.decode() for name in redis.ask("HKEYS", "pru:1:session:a")} == names - {"personal"}
    assert await store.load("a") == record(version=2)


async def test_what_waits_travels_together_on_one_connection(
    store: RedisStore, redis: RedisServer, proxy: Proxy
) -> None:
    await asyncio.gather(*(store.create(record(f"s{n}")) for n in range(500)))
    assert len(redis.ask("CLIENT", "LIST").splitlines()) == 2, "the store's and that of this test"
    proxy.open.clear()
    first = asyncio.create_task(store.count())
    await asyncio.sleep(0)
    before = proxy.parcels
    waiting = [asyncio.create_task(store.delete(f"s{n}")) for n in range(500)]
    await asyncio.sleep(0.01)
    proxy.open.set()
    assert await first == 500
    assert await asyncio.gather(*waiting) == 500 * [True]
    assert 500 // 64 < proxy.parcels - before < 60


async def test_what_is_cancelled_while_it_waits_is_never_done(store: RedisStore, proxy: Proxy) -> None:
    proxy.open.clear()
    first = asyncio.create_task(store.count())
    await asyncio.sleep(0.01)
    cancelled = asyncio.create_task(store.create(record("a")))
    kept = asyncio.create_task(store.create(record("b")))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    proxy.open.set()
    await asyncio.gather(first, kept)
    assert (await store.load("a"), await store.load("b")) == (None, record("b"))


async def test_a_reply_that_nobody_waits_for_any_more_is_no_other_commands(store: RedisStore, proxy: Proxy) -> None:
    await store.create(record())
    proxy.open.clear()
    cancelled = asyncio.create_task(store.count())
    await asyncio.sleep(0.01)
    cancelled.cancel()
    loading = asyncio.create_task(store.load("a"))
    await asyncio.sleep(0.01)
    proxy.open.set()
    assert await loading == record()


async def test_closing_leaves_no_connection(redis: RedisServer, clock: Clock) -> None:
    store = await redis_store(redis, clock)
    assert len(redis.ask("CLIENT", "LIST").splitlines()) == 2
    await store.close()
    async with asyncio.timeout(20):
        while len(redis.ask("CLIENT", "LIST").splitlines()) > 1:
            await asyncio.sleep(0.01)


async def test_databases_of_one_redis_are_stores_of_their_own(redis: RedisServer, clock: Clock) -> None:
    here, there = await redis_store(redis, clock), RedisStore(f"{redis.url}?db=3", now=clock)
    await there.open()
    await there.create(record())
    assert await here.load("a") is None
    assert redis.ask("INFO", "keyspace").keys() == {"db3"}
    for store in (here, there):
        await store.close()


async def test_opening_tells_what_redis_is_set_up_to_lose(redis: RedisServer, clock: Clock) -> None:
    redis.configure(maxmemory_policy="allkeys-lru")
    store = RedisStore(redis.url, now=clock)
    told = await store.open()
    await store.close()
    redis.configure(maxmemory_policy="noeviction")
    assert [line.rpartition("set its ")[2] for line in told] == [
        "appendonly to yes",
        "appendfsync to always",
        "maxmemory-policy to noeviction",
    ]
    assert all(line.startswith(f"Redis at {redis.socket} may ") for line in told)
    with redis_server(*DURABLE) as durable:
        store = RedisStore(durable.url, now=clock)
        assert await store.open() == []
        await store.close()


async def test_tls_checks_the_certificate_by_the_authority_that_the_address_names(
    redis: RedisServer, clock: Clock, tmp_path: Path
) -> None:
    required(shutil.which("openssl"), "openssl")
    file = tmp_path / "certificate.pem"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(file))
    certificate = subprocess.run(
        ["openssl", "req", "-x509", *subject, *key, "-days", "2"], check=True, capture_output=True
    ).stdout
    file.write_bytes(file.read_bytes() + certificate)
    async with proxy_to(redis.socket, file) as proxy:
        address = f"rediss://localhost:{proxy.port}/0"
        store = RedisStore(f"{address}?ssl_ca_certs={file}", now=clock)
        await store.open()
        await store.create(record())
        assert await store.load("a") == record()
        await store.close()
        place = f"Redis at localhost:{proxy.port}/0 cannot be reached"
        await refused(opened(RedisStore(address, now=clock)), place, "certificate")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://localhost", "localhost"),
        ("redis://localhost:6380/", "localhost:6380/"),
        ("redis://:secret@cache.example-1.net:6379/12", "cache.example-1.net:6379/12"),
        ("redis://user:secret%40%2F@10.0.0.1", "10.0.0.1"),
        ("redis://user:secret@[::1]:6379/0", "[::1]:6379/0"),
        ("rediss://user:secret@host/1?ssl_ca_certs=/ca.pem&ssl_keyfile=k.pem", "host/1"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
        ("unix://user:secret@/run/redis.sock?db=2", "/run/redis.sock"),
    ],
)
async def test_messages_name_a_redis_without_its_user_and_password(url: str, name: str) -> None:
    await refused(open_store(url).load("a"), f"Redis at {name} is closed")


@pytest.mark.parametrize(
    "url",
    [
        "redis:",
        "redis://",
        "redis:///0",
        "redis://user:secret@",
        "redis://user:secret@host:port",
        "redis://user:secret@host:65536",
        "redis://user:secret@host:\u0663",
        "redis://user:secret@[1:2:::]",
        "redis://user:secret@host/name",
        "redis://user:secret@host/0/1",
        "redis://user:sec/ret@host",
        "redis://user:secret@@host",
        "redis://host/0?ssl_ca_certs=/ca.pem",
        "redis://user:secret@host/0?retry_on_timeout=yes",
        "redis://user:secret@host?db=1",
        "redis://user:secret@host#part",
        "rediss://user:secret@host?ssl_cert_reqs=none",
        "unix://",
        "unix://user:secret@host",
        "unix:///run/redis.sock?password=secret",
        "unix:///run/redis.sock?db=x",
    ],
)
def test_an_address_that_names_no_redis_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must be a Redis named as redis://HOST:PORT/DATABASE") as raised:
        open_store(url)
    assert not [word for word in ("secret", "ret@", "\n") if word in str(raised.value)]


def test_where_there_is_no_redis_to_run_tests_are_skipped_and_fail_on_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for value, outcome in (("", pytest.skip.Exception), ("true", pytest.fail.Exception)):
        monkeypatch.setenv("CI", value)
        with pytest.raises(outcome, match="apt-get install redis-server"), redis_server():
            pass
