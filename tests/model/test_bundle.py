"""The bundle contract: what opens, and what is refused by which words."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.bundle import (
    Artefact,
    FileSum,
    Manifest,
    Metric,
    Validation,
    bundle_sha256,
    open_bundle,
    sums_of,
    write_manifest,
)
from model.config import ModelConfig
from model.conventions import Convention
from model.errors import BundleError
from model.vocabulary import Vocabulary

MODEL = ModelConfig(vocabulary_size=3, embedding_size=4, hidden_size=4, layers=1)
GRAPH = "onnx/int8/head.onnx"
VALIDATION = Validation(
    device="cpu",
    date="2020-01-01",
    hardware={"cores": 2},
    versions={"onnxruntime": "1.0"},
    data="some text",
    tokens=7,
    differences={"hidden": 0.01},
    perplexity=12.5,
    reference_perplexity=12.4,
    cost=12.5 / 12.4 - 1,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose only graph is some bytes."""
    folder = tmp_path / "bundle"
    (folder / GRAPH).parent.mkdir(parents=True)
    (folder / GRAPH).write_bytes(b"graph")
    Vocabulary(["<eos>", "<unk>", "word"], Convention.PTB).save(folder / "tokenizer.json")
    manifest = Manifest(
        format_version=2,
        name="small",
        model=MODEL,
        convention=Convention.PTB,
        files=sums_of(folder),
        engines={"onnx": {"int8": Artefact(files=(GRAPH,), validated=(VALIDATION,))}},
        metrics=(Metric(data="some text", engine="onnx", precision="int8", perplexity=12.5, tokens=7),),
        training={"seed": 1},
        licence=None,
        attribution="its authors",
    )
    write_manifest(folder, manifest)
    return folder


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_bytes())
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def older(data: dict[str, Any]) -> None:
    data["format_version"] = 1


def unvalidated(data: dict[str, Any]) -> None:
    data["engines"]["onnx"]["int8"]["validated"] = []


def test_a_bundle_comes_back_as_it_was_written(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.manifest.model == MODEL
    assert bundle.manifest.convention is Convention.PTB
    assert bundle.manifest.metrics[0].perplexity == 12.5
    assert bundle.manifest.attribution == "its authors"
    assert bundle.vocabulary().words == ("<eos>", "<unk>", "word")
    assert bundle.manifest.engines["onnx"]["int8"].validated == (VALIDATION,)
    assert bundle.paths(bundle.manifest.engines["onnx"]["int8"]) == [folder / GRAPH]


def test_the_sums_are_of_every_file_but_the_manifest(folder: Path) -> None:
    assert open_bundle(folder).manifest.files == sums_of(folder)
    assert sums_of(folder)[GRAPH] == FileSum(sha256=hashlib.sha256(b"graph").hexdigest(), bytes=5)
    assert set(sums_of(folder)) == {GRAPH, "tokenizer.json"}


def test_the_sum_of_the_manifest_names_the_bundle(folder: Path) -> None:
    assert open_bundle(folder).sha256 == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def test_fields_of_a_later_program_are_ignored(folder: Path) -> None:
    change_manifest(folder, lambda data: data.update(later=1))
    assert open_bundle(folder).manifest.name == "small"


@pytest.mark.parametrize(
    ("damage", "names", "problem"),
    [
        (lambda f: (f / GRAPH).unlink(), GRAPH, "is missing"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json", "is missing"),
        (lambda f: (f / GRAPH).write_bytes(b"gra"), GRAPH, "has 3 bytes instead of 5"),
        (lambda f: (f / GRAPH).write_bytes(b"grapH"), GRAPH, "was altered"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json", "is missing"),
        (lambda f: (f / "manifest.json").write_bytes(b"{"), "manifest.json", "not valid JSON"),
        (lambda f: (f / "manifest.json").write_bytes(b"[1]"), "manifest.json", "format version None"),
        (
            lambda f: change_manifest(f, older),
            "manifest.json",
            "format version 1, this program reads 2",
        ),
        (
            lambda f: change_manifest(f, lambda d: d["engines"]["onnx"]["int8"].update(validated=[])),
            "",
            "validated: Tup",
        ),
        (lambda f: change_manifest(f, lambda d: d.pop("name")), "manifest.json", "name: Field required"),
        (lambda f: change_manifest(f, lambda d: d["model"].update(groups=3)), "manifest.json", "groups=3"),
        (lambda f: change_manifest(f, lambda d: d.update(convention="x")), "manifest.json", "convention"),
        (lambda f: change_manifest(f, lambda d: d["files"].pop(GRAPH)), "manifest.json", f"no sum of {GRAPH}"),
        (lambda f: change_manifest(f, lambda d: d["files"].pop("tokenizer.json")), "manifest.json", "no sum of tok"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damage_is_refused_with_the_name_of_the_file(
    folder: Path, damage: Callable[[Path], Any], names: str, problem: str
) -> None:
    damage(folder)
    with pytest.raises(BundleError, match=problem) as caught:
        open_bundle(folder)
    assert str(folder / names) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "onnx/../../secret", "/etc/hostname", ""])
def test_a_path_that_leaves_the_folder_is_refused(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_bytes(b"")
    change_manifest(folder, lambda data: data["files"].update({name: data["files"][GRAPH]}))
    with pytest.raises(BundleError, match="not a path inside the bundle"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(folder: Path, name: str) -> None:
    change_manifest(folder, lambda data: data["files"].update({name: data["files"][GRAPH]}))
    with pytest.raises(BundleError, match=r"is missing|File name too long"):
        open_bundle(folder)


def test_a_linked_file_is_refused(folder: Path) -> None:
    (folder / GRAPH).rename(folder.parent / "elsewhere")
    (folder / GRAPH).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(BundleError, match=r"head\.onnx is a link"):
        open_bundle(folder)


def test_a_file_in_a_linked_folder_is_refused(folder: Path) -> None:
    (folder / "onnx").rename(folder.parent / "elsewhere")
    (folder / "onnx").symlink_to(folder.parent / "elsewhere")
    with pytest.raises(BundleError, match="onnx is a link"):
        open_bundle(folder)


def test_a_linked_manifest_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    path.rename(folder.parent / "elsewhere.json")
    path.symlink_to(folder.parent / "elsewhere.json")
    with pytest.raises(BundleError, match=r"manifest\.json is a link; a bundle holds only files of its own"):
        open_bundle(folder)


def test_a_manifest_that_is_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(BundleError, match=r"manifest\.json is no plain file"):
        open_bundle(folder)


def test_a_file_that_is_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / GRAPH).unlink()
    os.mkfifo(folder / GRAPH)
    with pytest.raises(BundleError, match=r"head\.onnx is missing"):
        open_bundle(folder)


def test_a_manifest_of_any_size_is_not_read_into_memory(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleError, match=r"manifest\.json is larger than 4,194,304 bytes"):
        open_bundle(folder)


def test_the_sum_that_names_a_bundle_is_had_without_its_files(folder: Path) -> None:
    expected = open_bundle(folder).sha256
    (folder / GRAPH).unlink()
    assert bundle_sha256(folder) == expected
    with pytest.raises(BundleError, match="is not a folder"):
        bundle_sha256(folder / "onnx" / "none")


def test_a_bundle_may_itself_be_reached_by_a_link(folder: Path) -> None:
    (folder.parent / "current").symlink_to(folder)
    assert open_bundle(folder.parent / "current").manifest.name == "small"


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder"):
        open_bundle(tmp_path / "nothing")


def test_sums_can_be_left_unchecked_but_sizes_are_not(folder: Path) -> None:
    (folder / GRAPH).write_bytes(b"grapH")
    assert open_bundle(folder, verify=False).manifest.name == "small"
    (folder / GRAPH).write_bytes(b"")
    with pytest.raises(BundleError, match="has 0 bytes"):
        open_bundle(folder, verify=False)


def sum_again(folder: Path) -> None:
    """Make the manifest fit files that were changed."""
    change_manifest(folder, lambda data: data.update(files={k: v.model_dump() for k, v in sums_of(folder).items()}))


def test_a_vocabulary_of_another_size_is_refused(folder: Path) -> None:
    Vocabulary(["<eos>", "<unk>"], Convention.PTB).save(folder / "tokenizer.json")
    sum_again(folder)
    with pytest.raises(BundleError, match=r"tokenizer\.json holds 2 words, the model 3"):
        open_bundle(folder).vocabulary()


def test_a_broken_vocabulary_is_an_error_of_the_bundle(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b"{}")
    sum_again(folder)
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        open_bundle(folder).vocabulary()
