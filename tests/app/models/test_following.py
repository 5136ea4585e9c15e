"""Serving processes that follow one file: several workers, signals, starts anew, and clients that notice nothing."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from model.bundle import open_bundle
from tests.app.models.bundles import HILLS, SEA, House, likeliest, shown
from tests.app.processes import Service, served
from tests.app.serving import PATIENCE, until
from tests.app.sharing import post

pytestmark = pytest.mark.slow

SERVE = """
import app.engines
from tests.app.models.bundles import load

app.engines.load_engine = load

from app.served_model import open_model
from app.server import run
from app.settings import load_settings

settings = load_settings()
run(settings, open_model(settings))
"""
"""Serves a file of models as `python -m app` does, with engines in numpy."""

LOST = "cannot be served, and what was before goes on"


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    house.bundle("sea")
    house.bundle("hills", HILLS)
    house.name("sea", sea="sea", hills="hills")
    return house


def serving(house: House, workers: int) -> AbstractContextManager[Service]:
    store = f"sqlite:///{house.folder}/sessions.db"
    return served("-c", SERVE, models=str(house.file), workers=str(workers), session_store=store)


def wait_until_all_answer(service: Service, workers: int = 2, models: int = 2) -> None:
    until(lambda: len(service.events("ready")) == workers)
    until(lambda: len(service.events("a model answers")) == workers * (models - 1))


def answers(service: Service, count: int = 20, **fields: Any) -> list[dict[str, Any]]:
    """Answers over connections of their own, which the workers share."""
    responses = [service.ask("/predict", **{"text": "the", **fields}) for _ in range(count)]
    assert [response.status_code for response in responses] == [200] * count
    return [response.json() for response in responses]


def bundles(service: Service, **fields: Any) -> set[str]:
    return {answer["model"]["sha256"] for answer in answers(service, **fields)}


def swapped(service: Service) -> list[str]:
    """Bundles that began to answer after the start, once for each worker."""
    return [line["sha256"] for line in service.events("a model answers")]


@contextmanager
def asked_by(clients: int, service: Service, texts: list[str]) -> Iterator[list[tuple[str, httpx2.Response]]]:
    """Clients that ask for a text after a text, all the time; a session of each goes on as well."""
    told: list[tuple[str, httpx2.Response]] = []
    stop = threading.Event()

    def ask(text: str) -> None:
        with httpx2.Client(base_url=service.url, timeout=PATIENCE) as client:
            session = post(client, "/sessions", text="the")["session_id"]
            while not stop.is_set():
                told.append((text, client.post("/predict", json={"text": text})))
                told.append(("", client.post(f"/sessions/{session}/append", json={"text": "the"})))
                stop.wait(0.1)  # The processes need the cores more than these threads do.

    threads = [threading.Thread(target=ask, args=(texts[index % len(texts)],)) for index in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_no_request_of_32_clients_fails_while_the_default_of_two_workers_swaps(house: House) -> None:
    versions = {house.bundle(f"v{index}", (SEA, HILLS)[index % 2], index): f"v{index}" for index in range(3)}
    house.name("m", m="v0")
    with serving(house, 2) as service:
        until(lambda: len(service.events("ready")) == 2)
        with asked_by(32, service, ["the boats", "the paths lead"]) as told:
            for sha256, name in versions.items():
                house.name("m", m=name)
                until(lambda: name == "v0" or swapped(service).count(sha256) == 2)  # noqa: B023 - waited for here
                enough = len(told) + 200
                until(lambda: len(told) > enough)  # noqa: B023
            assert bundles(service) == {sha256}
        assert {response.status_code for _, response in told} == {200}
        found = [(text, response.json()) for text, response in told]
        assert {answer["model"]["sha256"] for text, answer in found if text} == versions.keys()
        # Sessions stay where they began.
        assert len({answer["model"]["sha256"] for text, answer in found if not text}) == 1
        expected = {
            (text, sha256): likeliest(house.folder / name, text)
            for sha256, name in versions.items()
            for text in ("the boats", "the paths lead")
        }
        for text, answer in found:
            if text:
                assert shown(answer) == expected[text, answer["model"]["sha256"]]
        assert not service.events(LOST)
        assert not service.events("a worker ended")


def test_a_worker_in_the_place_of_one_that_died_serves_what_the_file_says_by_then(house: House) -> None:
    with serving(house, 2) as service:
        wait_until_all_answer(service)
        new = house.bundle("sea-2", HILLS, 2)
        house.name("sea", sea="sea-2", hills="hills")
        until(lambda: bundles(service) == {new})
        shutil.rmtree(house.folder / "sea")
        os.kill(min(service.workers()), signal.SIGKILL)
        until(lambda: len(service.events("ready")) == 3)
        assert bundles(service) == {new}
        assert bundles(service, model="hills") == {open_bundle(house.folder / "hills").sha256}


def replace_all(service: Service) -> None:
    """Kill every worker, one after the other; each kill waits until another has taken the place."""
    for worker in sorted(service.workers()):
        ready = len(service.events("ready"))
        os.kill(worker, signal.SIGKILL)
        until(lambda: len(service.events("ready")) == ready + 1)  # noqa: B023 - waited for here


def cards(service: Service) -> list[dict[str, Any]]:
    """What the workers, over connections of their own, say of themselves."""
    return [httpx2.get(f"{service.url}/model", timeout=PATIENCE).json() for _ in range(20)]


BREAK: dict[str, Callable[[House], Any]] = {
    "no TOML": lambda house: house.file.write_text("default = "),
    "no file": lambda house: house.file.unlink(),
    "no bundles": lambda house: house.name("sea", sea="gone", hills="gone-too"),
}


@pytest.mark.parametrize("kind", BREAK)
def test_a_worker_in_the_place_of_one_that_died_serves_what_that_one_did_where_the_file_is_broken(
    house: House, kind: str
) -> None:
    hills = open_bundle(house.folder / "hills").sha256
    with serving(house, 2) as service:
        wait_until_all_answer(service)
        new = house.bundle("sea-2", HILLS, 2)
        house.name("sea", sea="sea-2", hills="hills")
        until(lambda: swapped(service).count(new) == 2)
        session = service.ask("/sessions", text="the", model="hills").json()["session_id"]
        BREAK[kind](house)
        until(lambda: all(card["trouble"] for card in cards(service)))
        told = len(service.events(LOST))
        replace_all(service)
        assert bundles(service) == {new}
        assert bundles(service, model="hills") == {hills}
        for card in cards(service):
            assert card["models"] == ["sea", "hills"]
            assert card["trouble"].startswith("cannot be served as it is: ")
        assert len(service.events(LOST)) == 2 * told, "the log of each worker has it"
        assert service.ask(f"/sessions/{session}/append", text="paths").json()["model"]["sha256"] == hills
        newest = house.bundle("sea-3", SEA, 3)
        house.name("sea", sea="sea-3", hills="hills")
        until(lambda: bundles(service) == {newest})
        until(lambda: not any(card["trouble"] for card in cards(service)))


def test_what_cannot_be_had_again_after_a_death_is_named_and_the_rest_is_served(house: House) -> None:
    with serving(house, 2) as service:
        wait_until_all_answer(service)
        house.file.write_text("default = ")
        until(lambda: len(service.events(LOST)) == 2)
        shutil.rmtree(house.folder / "hills")
        replace_all(service)
        assert bundles(service) == {open_bundle(house.folder / "sea").sha256}
        assert {service.ask("/predict", text="the", model="hills").status_code for _ in range(20)} == {404}
        for card in cards(service):
            assert card["models"] == ["sea"]
            assert card["trouble"].startswith("cannot be served as it is: the file of models, hills; the log says why")
        reasons = [line["reason"] for line in service.events(LOST) if line["model"] == "hills"]
        assert len(reasons) == 2
        assert all("is not a folder" in reason for reason in reasons)


@pytest.mark.parametrize("workers", [1, 2])
def test_at_sighup_a_bundle_that_was_replaced_in_its_place_is_loaded(house: House, workers: int) -> None:
    with serving(house, workers) as service:
        wait_until_all_answer(service, workers)
        before = service.workers()
        shutil.rmtree(house.folder / "sea")
        new = house.bundle("sea", HILLS, 2)
        service.process.send_signal(signal.SIGHUP)
        until(lambda: bundles(service) == {new})
        assert service.workers() == before
        assert service.process.poll() is None


def test_sessions_go_on_over_a_restart_with_the_same_file(house: House) -> None:
    texts = {"sea": "the boats", "hills": "the paths"}
    sessions = {}
    with serving(house, 1) as service:
        wait_until_all_answer(service, 1)
        for name, text in texts.items():
            sessions[name] = service.ask("/sessions", text=text, model=name).json()["session_id"]
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0
    with serving(house, 1) as service:
        wait_until_all_answer(service, 1)
        for name, text in texts.items():
            answer = service.ask(f"/sessions/{sessions[name]}/append", text="").json()
            assert answer["model"]["name"] == name
            assert shown(answer) == likeliest(house.folder / name, text)
