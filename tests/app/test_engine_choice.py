"""Which engine is chosen for a bundle on a machine, and what is said of the others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pytest

from app.engines import choice, load_engine
from app.engines.choice import CANDIDATES, choose, devices_validated_on, offers
from app.settings import PROJECT_ROOT
from model.bundle import Bundle, open_bundle
from model.errors import EngineError
from tests.app.bundles import export_small_bundle
from tests.app.commands import run
from tests.source import ROOT

Machine = Callable[..., None]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(export_small_bundle(tmp_path_factory.mktemp("choice")))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Sets what the machine lacks for each engine (nothing unless said), and where artefacts were validated."""

    def become(lacks: Mapping[str, str | None], *devices: str) -> None:
        pretended = tuple(replace(candidate, lacks=partial(lacks.get, candidate.engine)) for candidate in CANDIDATES)
        monkeypatch.setattr(choice, "CANDIDATES", pretended)
        monkeypatch.setattr(choice, "devices_validated_on", lambda _: set(devices))

    return become


def chosen(bundle: Bundle, engine: str = "auto", precision: str = "auto") -> tuple[str, str]:
    found = choose(bundle, engine, precision)
    return found.engine, found.precision


def without(bundle: Bundle, precision: str) -> Bundle:
    """The bundle less the ONNX artefact of a precision."""
    held = {name: artefact for name, artefact in bundle.manifest.engines["onnx"].items() if name != precision}
    engines = bundle.manifest.engines | {"onnx": held}
    return Bundle(bundle.folder, bundle.manifest.model_copy(update={"engines": engines}), bundle.sha256)


def test_the_fastest_that_machine_and_bundle_have_and_that_was_validated_there_is_chosen(
    bundle: Bundle, machine: Machine
) -> None:
    machine({}, "cpu", "cuda")
    assert chosen(bundle) == ("onnx-cuda", "float32")
    assert chosen(without(bundle, "float32")) == ("onnx", "int8")
    machine({"onnx-cuda": "no CUDA device"}, "cpu", "cuda")
    assert chosen(bundle) == ("onnx", "int8")
    assert chosen(without(bundle, "int8")) == ("onnx", "float32")
    machine({}, "cpu")
    assert chosen(bundle) == ("onnx", "int8"), "not validated on cuda"


def test_what_was_not_validated_on_such_a_device_is_taken_only_by_name(bundle: Bundle, machine: Machine) -> None:
    machine({}, "cpu")
    assert chosen(bundle, "onnx-cuda") == ("onnx-cuda", "float32")
    [offer] = [offer for offer in offers(bundle) if offer.engine == "onnx-cuda"]
    assert (offer.missing, offer.validated, offer.chosen) == (None, False, False)
    machine({})
    with pytest.raises(EngineError, match="onnx in int8, onnx in float32: not validated on cpu; name the engine"):
        choose(bundle, "auto", "auto")


def test_a_precision_narrows_the_choice_among_engines_and_an_engine_that_among_precisions(
    bundle: Bundle, machine: Machine
) -> None:
    machine({}, "cpu", "cuda")
    assert chosen(bundle, precision="int8") == ("onnx", "int8")
    assert chosen(bundle, precision="float32") == ("onnx-cuda", "float32")
    assert chosen(bundle, "onnx") == ("onnx", "int8")
    assert chosen(bundle, "onnx", "float32") == ("onnx", "float32")


def test_what_auto_rules_out_by_the_manifest_is_not_probed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> str | None:
        raise AssertionError

    guarded = tuple(
        replace(candidate, lacks=never) if candidate.device == "cuda" else candidate for candidate in CANDIDATES
    )
    monkeypatch.setattr(choice, "CANDIDATES", guarded)
    monkeypatch.setattr(choice, "devices_validated_on", lambda _: {"cpu"})
    assert chosen(bundle) == ("onnx", "int8")


def test_an_engine_that_is_lacking_is_refused_with_what_it_lacks_and_what_there_is(
    bundle: Bundle, machine: Machine
) -> None:
    machine({"onnx-cuda": "no CUDA device: the driver was not found"}, "cpu", "cuda")
    with pytest.raises(EngineError) as refused:
        load_engine(bundle, engine="onnx-cuda")
    assert str(refused.value) == (
        f"{bundle.folder} cannot be run as asked: onnx-cuda in float32: no CUDA device: the driver was not found. "
        "Ready here: onnx in int8, onnx in float32"
    )


@pytest.mark.parametrize(
    ("engine", "precision", "problem"),
    [
        ("onx", "auto", "there is no engine named 'onx'; choose one of auto, "),
        ("auto", "int4", "no engine runs in 'int4'; choose one of auto, "),
        ("onnx-cuda", "int8", "no engine runs in 'int8'; choose one of auto, float32"),
        ("onnx", "int8", r"the bundle holds no onnx artefact in int8 \(it holds float32\); export it with --precision"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_the_choices(
    bundle: Bundle, engine: str, precision: str, problem: str
) -> None:
    with pytest.raises(EngineError, match=problem):
        choose(without(bundle, "int8"), engine, precision)


def test_a_bundle_without_any_artefact_is_refused_with_how_to_export_one(bundle: Bundle) -> None:
    empty = Bundle(bundle.folder, bundle.manifest.model_copy(update={"engines": {}}), bundle.sha256)
    with pytest.raises(EngineError, match=r"the bundle holds no onnx artefact; export it .* Ready here: none"):
        load_engine(empty)


def test_an_artefact_counts_as_validated_on_every_kind_of_device_that_it_has_a_record_of(bundle: Bundle) -> None:
    accepted = bundle.manifest.engines["onnx"]["float32"]
    assert devices_validated_on(accepted) == {"cpu"}
    on_a_gpu = accepted.validated[0].model_copy(update={"device": "cuda"})
    both = accepted.model_copy(update={"validated": (*accepted.validated, on_a_gpu)})
    assert devices_validated_on(both) == {"cpu", "cuda"}


def test_the_fastest_on_a_gpu_comes_before_all_that_runs_on_a_cpu() -> None:
    ways = [(candidate.engine, candidate.precision, candidate.device) for candidate in CANDIDATES]
    assert len(set(ways)) == len(ways)
    on_the_cpu = [(engine, precision) for engine, precision, device in ways if device == "cpu"]
    assert on_the_cpu == [("onnx", "int8"), ("onnx", "float32"), ("torchscript", "float32")]
    assert {device for _, _, device in ways[: -len(on_the_cpu)]} == {"cuda"}


def test_the_terminal_lists_every_engine_with_what_it_lacks(
    bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PRU_BUNDLE", str(bundle.folder))
    machine({"onnx-cuda": "no [bold]device"}, "cpu")
    assert run(monkeypatch, "engines") == 0
    table = capsys.readouterr().out
    assert table.index("onnx-cuda") < table.index("no [bold]device") < table.index("int8") < table.index("chosen")
    assert run(monkeypatch, "engines", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["name"] == "small"
    assert [(each["engine"], each["precision"]) for each in listed["engines"]] == [
        (candidate.engine, candidate.precision) for candidate in CANDIDATES
    ]
    assert [each["chosen"] for each in listed["engines"]].count(True) == 1
    monkeypatch.setenv("PRU_ENGINE", "onnx-cuda")
    assert run(monkeypatch, "engines", "--json") == 0
    assert not any(each["chosen"] for each in json.loads(capsys.readouterr().out)["engines"])


def test_choosing_among_the_bundled_models_engines_loads_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from app.engines.choice import choose, offers; "
        "from model.bundle import open_bundle; bundle = open_bundle(Path(sys.argv[1])); "
        "offers(bundle); choose(bundle, 'auto', 'auto'); sys.exit('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(PROJECT_ROOT / "bundles" / "wikitext-2")]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
