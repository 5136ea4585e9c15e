"""What is broken, the file or a bundle in it, is told once and never interrupts what is served."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from model.bundle import Bundle, open_bundle
from model.errors import BundleError, EngineMemoryError
from tests.app.fakes import NumpyEngine
from tests.app.models.bundles import HILLS, SEA, House, answering, likeliest, load, shown
from tests.app.numbers import number
from tests.app.serving import until
from tests.app.talking import append, create, post


def spoil(change: Callable[[Path], Any]) -> Callable[[House], None]:
    """Name a new bundle that `change` has spoilt."""

    def prepare(house: House) -> None:
        house.bundle("new", HILLS, 2)
        change(house.folder / "new")
        house.name("sea", sea="new", hills="hills")

    return prepare


def link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def bundle_out_of_the_folder(house: House) -> None:
    outside = House(house.folder.parent / f"{house.folder.name}-outside")
    outside.bundle("new", HILLS, 2)
    house.name("sea", sea=f"../{outside.folder.name}/new", hills="hills")


BROKEN: dict[str, tuple[Callable[[House], Any], str]] = {
    "no TOML": (lambda house: house.file.write_text("default ="), "is not valid TOML"),
    "an empty file": (lambda house: house.file.write_bytes(b""), "default: Field required"),
    "the file deleted": (lambda house: house.file.unlink(), "cannot be read: No such file"),
    "a default that is not there": (lambda house: house.name("none", sea="sea"), "'none' is none of the models"),
    "a climbing name": (lambda house: house.name("sea", **{"sea": "sea", "../x": "hills"}), "should match pattern"),
    "a climbing path": (bundle_out_of_the_folder, "leads out of"),
    "a missing folder": (lambda house: house.name("sea", sea="gone", hills="hills"), "is not a folder"),
    "no manifest": (spoil(lambda folder: (folder / "manifest.json").unlink()), "is missing"),
    "a manifest that is no JSON": (spoil(lambda folder: (folder / "manifest.json").write_text("{")), "not valid JSON"),
    "a linked manifest": (spoil(lambda folder: link(folder / "manifest.json")), "is a link"),
    "a linked file": (spoil(lambda folder: link(folder / "tokenizer.json")), "is a link"),
    "a file cut short": (spoil(lambda folder: os.truncate(folder / "tokenizer.json", 5)), "bytes instead of"),
    "a wrong sum": (
        spoil(
            lambda folder: (folder / "tokenizer.json").write_bytes(b" " * (folder / "tokenizer.json").stat().st_size)
        ),
        "its sha256 is not the manifest's",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_told_once_and_changes_nothing_until_it_is_mended(house: House, kind: str) -> None:
    break_it, reason = BROKEN[kind]
    old = open_bundle(house.folder / "sea").sha256
    with house.serving() as client:
        session = create(client, "the")
        break_it(house)
        until(lambda: client.get("/model").json()["trouble"] is not None)
        for _ in range(5):
            assert answering(client) == old
            assert post(client, "/predict", text="the", model="hills")["model"]["name"] == "hills"
        assert append(client, session, "boats")["model"]["sha256"] == old
        assert number(client, "pru_models_broken") == 1
        told = client.get("/model").json()["trouble"]
        assert str(house.folder) not in told
        [complaint] = house.troubles()
        assert reason in complaint["reason"]
        assert client.get("/health/ready").status_code == 200
        mended = house.bundle("mended", SEA, 3)
        house.name("sea", sea="mended", hills="hills")
        until(lambda: answering(client) == mended)
        until(lambda: client.get("/model").json()["trouble"] is None)
        assert number(client, "pru_models_broken") == 0
        assert len(house.troubles()) == 1


@pytest.mark.parametrize("error", [MemoryError(), EngineMemoryError("too little memory"), RuntimeError("who knows")])
def test_a_bundle_that_cannot_be_loaded_leaves_nothing_behind(
    house: House, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    new = house.bundle("new", HILLS, 2)
    taken: list[weakref.ref[Any]] = []

    class Block:
        """Memory that was had before there was no more."""

    def fill(bundle: Bundle, *_: Any) -> NumpyEngine:
        if bundle.sha256 != new:
            return load(bundle)
        block = Block()
        taken.append(weakref.ref(block))
        raise error

    monkeypatch.setattr("app.engines.load_engine", fill)
    with house.serving() as client:
        old = answering(client)
        house.name("sea", sea="new", hills="hills")
        until(lambda: client.get("/model").json()["trouble"] is not None)
        assert "sea" in client.get("/model").json()["trouble"]
        assert answering(client) == old
        [complaint] = house.troubles()
        assert complaint["model"] == "sea"
        assert [ref() for ref in taken] == [None]
        monkeypatch.setattr("app.engines.load_engine", load)
        os.utime(house.file)
        until(lambda: answering(client) == new)


def test_one_broken_bundle_does_not_keep_the_others_from_changing(house: House) -> None:
    new, default = house.bundle("new", HILLS, 2), house.bundle("new-default", SEA, 2)
    with house.serving() as client:
        house.name("sea", sea="new-default", broken="gone", hills="new")
        until(lambda: client.get("/model").json()["trouble"] is not None)
        assert answering(client) == default
        assert post(client, "/predict", text="the", model="hills")["model"]["sha256"] == new
        assert client.get("/model").json()["models"] == ["sea", "hills"]
        assert post(client, "/predict", 404, text="the", model="broken")["detail"].endswith("there is sea, hills")


def test_a_default_that_cannot_be_loaded_leaves_the_old_one_even_where_its_name_is_gone(house: House) -> None:
    with house.serving() as client:
        house.name("new", new="gone", hills="hills")
        until(lambda: client.get("/model").json()["trouble"] is not None)
        assert client.get("/model").json()["models"] == ["sea", "hills"]
        assert shown(post(client, "/predict", text="the boats")) == likeliest(house.folder / "sea", "the boats")


def test_a_broken_default_starts_no_server_and_another_that_is_broken_does_not_keep_it(house: House) -> None:
    house.name("gone", gone="gone", sea="sea")
    with pytest.raises(BundleError, match="is not a folder"), TestClient(house.app()):
        pass
    house.name("sea", gone="gone", sea="sea")
    with TestClient(house.app()) as client:
        until(lambda: client.get("/health/ready").status_code == 200)
        until(lambda: client.get("/model").json()["trouble"] is not None)
        assert client.get("/model").json()["models"] == ["sea"]
    assert [line["model"] for line in house.troubles()] == ["gone"]
