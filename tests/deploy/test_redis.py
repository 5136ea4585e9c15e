"""The Redis of `deploy/kubernetes` as its pod starts it: where there is a Redis, the very command is run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from tests.app.serving import until
from tests.commands import required
from tests.deploy.objects import BASE, Objects, container, megabytes, plain_environment
from tests.training.distributed import free_port

PASSWORD = "0c5f2c1a9b"


def variables() -> dict[str, str]:
    """Variables of both pods that are the Secret's password, as it is here."""
    return {
        entry["name"]: PASSWORD
        for pod in Objects(BASE).pods().values()
        for entry in container(pod)["env"]
        if entry.get("valueFrom", {}).get("secretKeyRef") == {"name": "pru-redis", "key": "password"}
    }


def address(port: int) -> str:
    """The setting of the service's pod, with the password in it as Kubernetes puts it there, on this machine."""
    store: str = plain_environment(Objects(BASE).pods()["pru"])["PRU_SESSION_STORE"]
    for name, value in variables().items():
        store = store.replace(f"$({name})", value)
    return store.replace("@redis:6379/", f"@127.0.0.1:{port}/")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def process(port: int, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Redis, as the pod starts it, but in a folder and on a port of this test."""
    required(shutil.which("redis-server"), "redis-server")
    pod = container(Objects(BASE).pods()["redis"])
    here = {"/data": str(tmp_path), "6379": str(port)}
    command = [here.get(word, word) for word in pod["command"] + pod["args"]]
    with subprocess.Popen(command, env=os.environ | variables(), stdout=subprocess.DEVNULL) as running:
        try:
            yield running
        finally:
            running.kill()


def probe(kind: str, port: int, environment: dict[str, str]) -> int:
    """The exit status of a probe of the pod."""
    command = container(Objects(BASE).pods()["redis"])[f"{kind}Probe"]["exec"]["command"]
    program = required(shutil.which(command[0]), "redis-server")
    arguments = [program, "-p", str(port), *command[1:]]
    return subprocess.run(arguments, env=os.environ | environment, capture_output=True, check=False).returncode


def test_the_service_is_let_in_by_its_password_and_nobody_without(port: int, process: subprocess.Popen[bytes]) -> None:
    assert variables().keys() == {"REDIS_PASSWORD", "REDISCLI_AUTH"}
    with Redis.from_url(address(port)) as client:
        until(lambda: _answers(client))
        # What the service needs for its promises, and no more memory than the pod has.
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("save") == {"save": ""}
        assert "*" in client.config_get("bind")["bind"]
        limit = container(Objects(BASE).pods()["redis"])["resources"]["limits"]["memory"]
        assert int(client.config_get("maxmemory")["maxmemory"]) / 1e6 < 0.7 * megabytes(limit)
    with Redis(port=port) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()
    told = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert told.startswith(b"redis-server")
    assert PASSWORD.encode() not in told


def test_probes_hold_where_redis_answers_and_only_there(port: int, process: subprocess.Popen[bytes]) -> None:
    with Redis.from_url(address(port)) as client:
        until(lambda: _answers(client))
    for kind in ("startup", "readiness", "liveness"):
        assert probe(kind, port, variables()) == 0
        assert probe(kind, port, {"REDISCLI_AUTH": ""}) != 0
    # The process that was started is Redis itself, which hears that it is to end.
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert probe("liveness", port, variables()) != 0


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False
