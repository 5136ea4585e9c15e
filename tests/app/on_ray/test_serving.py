"""Replicas of Ray Serve: as many as waits for the engine ask for, sessions that outlive each of them, and refusals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.sync.client import connect

from app.main import create_app
from app.settings import Settings
from model.errors import ConfigurationError, EngineError
from tests.app.fakes import fake_model
from tests.app.on_ray.nodes import Nodes, need_ray, processes_named, two_nodes
from tests.app.serving import serving
from tests.examples import free_port
from tests.redis_server import redis_server
from tests.source import ROOT

FILE = ROOT / "deploy" / "ray" / "serve.yaml"
REPLICA = "ray::ServeReplica:pru:PRU"
PATIENCE = 180

# Ray Serve describes its settings with an argument of Pydantic that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")


def deployed() -> dict[str, Any]:
    """The file that deploys the service."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


@contextmanager
def serve_run(nodes: Nodes, folder: Path, store: str, **scaling: Any) -> Iterator[str]:
    """Address of the service that the file deploys, on another port, with this store, and ended well."""
    document = deployed()
    document["http_options"]["port"] = port = free_port()
    [application] = document["applications"]
    application["runtime_env"]["env_vars"]["PRU_SESSION_STORE"] = store
    [deployment] = application["deployments"]
    deployment["autoscaling_config"].update(scaling)
    deployment["ray_actor_options"]["num_cpus"] = 0.5
    (folder / "serve.yaml").write_text(yaml.safe_dump(document))
    command = "from ray.serve.scripts import cli; cli()"
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", command, "run", str(folder / "serve.yaml")],
            cwd=ROOT,
            env=nodes.environment,
            stdout=log,
            stderr=log,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: process.poll() is not None or is_ready(address))
        assert process.poll() is None, (folder / "serve.log").read_text()
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


def ask(url: str, body: dict[str, Any] | None = None) -> bytes:
    """What is answered."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        found: bytes = response.read()
    return found


def is_ready(address: str) -> bool:
    try:
        return b"ready" in ask(f"{address}/health/ready")
    except OSError:
        return False


def wait_until(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


@contextmanager
def load(address: str) -> Iterator[None]:
    """Clients that make readings wait."""
    over = threading.Event()

    def score() -> None:
        texts = ["The film was released in the United States."] * 100
        while not over.is_set():
            try:
                ask(f"{address}/perplexity", {"texts": texts})
            except urllib.error.HTTPError as error:
                error.close()

    clients = [threading.Thread(target=score) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        over.set()
        for client in clients:
            client.join()


@pytest.mark.slow
def test_replicas_become_more_under_load_and_sessions_outlive_each_of_them(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("serve")
    with (
        redis_server() as redis,
        two_nodes(folder) as nodes,
        serve_run(nodes, folder, f"{redis.url}?db=0", min_replicas=1, max_replicas=2, upscale_delay_s=1) as address,
    ):
        first = processes_named(REPLICA)
        assert len(first) == 1
        with load(address):
            wait_until(lambda: len(processes_named(REPLICA)) == 2)
        session = json.loads(ask(f"{address}/sessions", {"text": "The film was"}))["session_id"]
        place = f"{address}/sessions/{session}"
        # Whichever made the session, it is read on once by the other.
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: first[0] not in processes_named(REPLICA))
        assert retried(f"{place}/append", {"text": " released in the"})["position"] == 6
        wait_until(lambda: len(processes_named(REPLICA)) == 2)
        [second] = [process for process in processes_named(REPLICA) if process != max(processes_named(REPLICA))]
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: is_ready(address))
        assert retried(f"{place}/append", {"text": " United"})["position"] == 7
        events = ask(f"{place}/continue", {"max_tokens": 3, "stream": True, "temperature": 0}).decode()
        assert events.count("event: token") == 3
        with connect(f"{place.replace('http', 'ws')}/stream") as socket:
            socket.send(json.dumps({"id": 1, "type": "append", "text": " and"}))
            assert json.loads(socket.recv(PATIENCE))["position"] > 7


def retried(url: str, body: dict[str, Any]) -> Any:
    """An answer, asked for again where a replica went away."""
    for _ in range(20):
        try:
            return json.loads(ask(url, body))
        except (OSError, json.JSONDecodeError):
            time.sleep(1)
    return json.loads(ask(url, body))


@pytest.mark.parametrize(
    ("replicas", "seconds", "wanted"),
    [(2, 0.0, 1), (2, 0.004, 1), (2, 0.01, 2), (2, 0.02, 2), (2, 0.03, 3), (4, 0.025, 5), (2, 5.0, 4)],
)
def test_a_longer_wait_asks_for_more_replicas_and_a_short_one_for_one_fewer(
    replicas: int, seconds: float, wanted: float
) -> None:
    need_ray()
    from app.on_ray.serving import replicas_by_wait

    assert replicas_by_wait(replicas, seconds) == pytest.approx(wanted)


def test_a_replica_reports_the_mean_wait_since_it_was_asked_last() -> None:
    need_ray()
    from app.on_ray.serving import Replica

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRU_SESSION_STORE", "redis://redis.example:1/0")
        patch.setenv("PRU_ALLOW_ANONYMOUS", "true")
        replica = Replica()
    replica.__serve_build_asgi_app__()
    assert replica.record_autoscaling_stats() == {"queue_seconds": 0.0}
    waits = [replica._metrics.of_model(name).queue_seconds for name in ("first", "second")]
    waits[0].observe(0.1)
    waits[1].observe(0.3)
    assert replica.record_autoscaling_stats() == {"queue_seconds": pytest.approx(0.2)}
    waits[0].observe(0.05)
    assert replica.record_autoscaling_stats() == {"queue_seconds": pytest.approx(0.05)}
    assert replica.record_autoscaling_stats() == {"queue_seconds": 0.0}
    replica.check_health()
    replica._lifecycle.failure = EngineError("dead")
    with pytest.raises(EngineError, match="the service has failed"):
        replica.check_health()


def test_the_waits_of_requests_are_those_of_metrics() -> None:
    with serving() as client:
        before = client.app.state.metrics.waited()  # type: ignore[attr-defined]
        client.post("/perplexity", json={"texts": ["the sea", "the harbour"]})
        seconds, count = client.app.state.metrics.waited()  # type: ignore[attr-defined]
    assert count == before[1] + 2 + 1  # The context, which is empty, is read too.
    assert seconds > before[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"session_store": "sqlite:///sessions.db", "allow_anonymous": True}, "PRU_SESSION_STORE=redis"),
        ({"session_store": "redis://redis.example:1/0"}, "PRU_KEYS_FILE"),
    ],
)
def test_replicas_do_not_start_apart_or_open_to_all_by_mistake(settings: dict[str, Any], words: str) -> None:
    need_ray()
    from app.on_ray.serving import check

    with pytest.raises(ConfigurationError, match=words):
        check(Settings(**settings))


@pytest.mark.parametrize(
    ("store", "is_refused"),
    [
        ("redis://127.0.0.1:6379/0", True),
        ("redis://:word@localhost/0", True),
        ("rediss://[::1]:6379/0", True),
        ("unix:///run/redis.sock?db=0", True),
        ("redis://redis.example:6379/0", False),
        ("redis://10.0.0.9:6379/0", False),
    ],
)
def test_replicas_on_several_machines_refuse_a_redis_that_each_machine_has_of_its_own(
    monkeypatch: pytest.MonkeyPatch, store: str, is_refused: bool
) -> None:
    need_ray()
    from app.on_ray.serving import check

    def machines(*addresses: str) -> None:
        monkeypatch.setattr("ray.nodes", lambda: [{"NodeManagerAddress": address} for address in addresses])

    settings = Settings(session_store=store, allow_anonymous=True)
    machines("10.0.0.1", "10.0.0.1")
    check(settings)
    machines("10.0.0.1", "10.0.0.2")
    with pytest.raises(ConfigurationError, match="several machines") if is_refused else nullcontext():
        check(settings)


def test_the_page_and_the_file_name_one_command_and_ray_and_redis_have_ports_of_their_own() -> None:
    page, file = (ROOT / "docs" / "scale.md").read_text(), FILE.read_text()
    assert "serve run deploy/ray/serve.yaml" in page
    assert "`serve run deploy/ray/serve.yaml`" in file
    [port] = set(re.findall(r"(?:FIRST:|--port )(\d+)", page))
    [application] = deployed()["applications"]
    assert not application["runtime_env"]["env_vars"]["PRU_SESSION_STORE"].endswith(f":{port}/0")


def test_the_file_names_what_there_is_and_waits_for_what_the_service_has_in_flight() -> None:
    need_ray()
    from ray.serve.schema import ServeDeploySchema

    from app.on_ray import serving as module

    ServeDeploySchema.model_validate(deployed())
    assert deployed()["http_options"]["host"] == "127.0.0.1"
    [application] = deployed()["applications"]
    names = [application["import_path"]]
    [deployment] = application["deployments"]
    names.append(deployment["autoscaling_config"]["policy"]["policy_function"])
    for name in names:
        place, _, attribute = name.partition(":")
        assert place == module.__name__
        assert hasattr(module, attribute)
    variables = application["runtime_env"]["env_vars"]
    assert {name.removeprefix("PRU_").lower() for name in variables} <= Settings.model_fields.keys()
    from app.server import GRACE_SECONDS

    assert deployment["graceful_shutdown_timeout_s"] >= Settings().deadline_seconds + GRACE_SECONDS
    assert deployment["max_ongoing_requests"] > Settings().queue_limit


def test_the_application_is_the_one_that_pru_serves() -> None:
    need_ray()
    from app.on_ray.serving import Replica

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRU_SESSION_STORE", "redis://redis.example:1/0")
        patch.setenv("PRU_ALLOW_ANONYMOUS", "true")
        app = Replica().__serve_build_asgi_app__()
    assert app.openapi() == create_app(Settings(), fake_model()).openapi()
