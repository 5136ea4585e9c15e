"""Programs of torch, loaded as the service loads them: what they compute, what they hold, and what is refused."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.torchscript import program, torchscript, write_torchscript
from model import torch_model
from model.config import ModelConfig
from model.errors import EngineError
from model.language_model import LanguageModel
from model.torchscript_model import HEAD, SCRIPT, STEP, TorchScriptModel
from tests.export.reference import ReferenceModel
from tests.export.samples import config_of, random_ids, random_states, random_weights

ROOT = Path(__file__).parents[2]
CONFIGS = {
    "plain": config_of(),
    "gated mixture": config_of(mogrifier_rounds=4, softmaxes=3, subsampling="convolution", levels=3),
    "pyramids": config_of(context_transform="pyramidal", subsampling="max", levels=3, layers=3),
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of every configuration's programs."""
    folders = {}
    for name, config in CONFIGS.items():
        model = LanguageModel(config)
        model.load_state_dict({key: torch.from_numpy(array) for key, array in random_weights(config).items()})
        folders[name] = tmp_path_factory.mktemp("programs") / "float32"
        write_torchscript(model.eval(), folders[name])
    return folders


@pytest.fixture
def folder(written: dict[str, Path], tmp_path: Path) -> Path:
    """Programs that a test may damage."""
    return shutil.copytree(written["plain"], tmp_path / "float32")


def load(folder: Path, *, exported: bool = False) -> TorchScriptModel:
    return TorchScriptModel(folder.iterdir(), exported=exported)


def rewrite(path: Path, change: Callable[[dict[str, bytes]], Any]) -> None:
    """Change the records of an archive, by their names below its folder."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(records)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(f"{root}/{name}", data)


@pytest.mark.parametrize("exported", [False, True], ids=["torchscript", "torch.export"])
@pytest.mark.parametrize("name", CONFIGS)
def test_programs_compute_the_model_for_any_batch_and_length(
    written: dict[str, Path], name: str, exported: bool
) -> None:
    config: ModelConfig = CONFIGS[name]
    model, reference = load(written[name], exported=exported), ReferenceModel(config, random_weights(config))
    assert (model.vocabulary_size, model.hidden_size, model.state_size) == (
        config.vocabulary_size,
        config.embedding_size,
        config.state_size,
    )
    for lengths in ([9], [1], [5, 0, 1, 7], [3, 3]):
        ids, states = random_ids(config, len(lengths), max(lengths)), random_states(config, len(lengths))
        hidden, after = model.advance(ids, np.array(lengths, np.int32), states)
        for row, length in enumerate(lengths):
            expected, expected_state = reference.advance(ids[row, :length], states[row])
            np.testing.assert_allclose(hidden[row, :length], expected, atol=1e-5)
            np.testing.assert_allclose(after[row], expected_state, atol=1e-5)
            likely = reference.log_probabilities(expected)
            np.testing.assert_allclose(model.log_probabilities(hidden[row, :length]), likely, atol=1e-5)


def test_both_programs_give_the_same(written: dict[str, Path]) -> None:
    scripted, exported = (load(written["gated mixture"], exported=exported) for exported in (False, True))
    config = CONFIGS["gated mixture"]
    ids, lengths, states = random_ids(config, 3, 6), np.array([6, 2, 4], np.int32), random_states(config, 3)
    (hidden, after), (other, other_after) = (each.advance(ids, lengths, states) for each in (scripted, exported))
    np.testing.assert_allclose(other_after, after, atol=1e-6)
    np.testing.assert_allclose(other[0], hidden[0], atol=1e-6)
    np.testing.assert_allclose(exported.log_probabilities(hidden[0]), scripted.log_probabilities(hidden[0]), atol=1e-5)


@pytest.mark.parametrize("exported", [False, True], ids=["torchscript", "torch.export"])
def test_a_text_in_chunks_gives_what_it_gives_at_once(
    written: dict[str, Path], monkeypatch: pytest.MonkeyPatch, exported: bool
) -> None:
    config = CONFIGS["plain"]
    ids, states = random_ids(config, 2, 40), random_states(config, 2)
    lengths = np.array([40, 23], np.int32)
    hidden, after = load(written["plain"], exported=exported).advance(ids, lengths, states)
    monkeypatch.setitem(torch_model.MAX_TOKENS, "cpu", 14)
    chunked, chunked_after = load(written["plain"], exported=exported).advance(ids, lengths, states)
    np.testing.assert_allclose(chunked_after, after, atol=1e-6)
    np.testing.assert_allclose(chunked[0], hidden[0], atol=1e-6)
    np.testing.assert_allclose(chunked[1, :23], hidden[1, :23], atol=1e-6)


def test_without_torchscript_the_exported_program_serves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.jit, "load")
    (folder / SCRIPT).unlink()
    assert TorchScriptModel(folder.iterdir()).vocabulary_size == CONFIGS["plain"].vocabulary_size


def test_a_program_that_is_not_listed_is_named(folder: Path) -> None:
    for name, exported in ((SCRIPT, False), (STEP, True), (HEAD, True)):
        with pytest.raises(EngineError, match=rf"the bundle lists no {re.escape(name)}; export it again"):
            TorchScriptModel([path for path in folder.iterdir() if path.name != name], exported=exported)


def test_no_file_holds_a_path_of_this_machine_or_a_pickle_of_python(written: dict[str, Path]) -> None:
    for path in written["plain"].iterdir():
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                data = archive.read(name)
                assert str(ROOT).encode() not in data
                assert b"site-packages" not in data
                if path.name != SCRIPT and "/weight_" not in name:
                    assert not data.startswith(pickle.PROTO)
    with zipfile.ZipFile(written["plain"] / STEP) as archive:
        [samples] = [name for name in archive.namelist() if "sample_inputs" in name]
        assert archive.read(samples) == b""


@pytest.mark.parametrize(
    ("name", "exported"), [(SCRIPT, False), (STEP, True), (HEAD, True)], ids=["model.pt", "model.pt2", "head.pt2"]
)
@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: b"\x80\x04" * 500, lambda data: data[: len(data) // 2], lambda data: data[100:]],
    ids=["empty", "garbage", "truncated", "headless"],
)
def test_a_damaged_file_is_one_line_that_names_it(
    folder: Path, name: str, exported: bool, damage: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(EngineError, match=rf"{re.escape(name)} cannot be loaded by torch .*; restore the") as caught:
        load(folder, exported=exported)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("name", "exported"), [(SCRIPT, False), (STEP, True)], ids=["model.pt", "model.pt2"])
def test_a_file_of_another_torch_that_cannot_be_loaded_names_both_versions(
    folder: Path, name: str, exported: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    def of_another(records: dict[str, bytes]) -> None:
        records["extra/torch"] = b"9.8.7"
        for record in ("models/model.json", "code/__torch__/model/inference.py"):
            if record in records:
                records[record] = b"def nothing_that_is_known:\n"

    rewrite(folder / name, of_another)
    with pytest.raises(EngineError, match=rf"{re.escape(name)} was written by torch 9\.8\.7 and cannot") as caught:
        load(folder, exported=exported)
    assert f"by torch {torch.__version__} (" in str(caught.value)
    assert "export the bundle again with this torch, or install that one" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_pickle_in_a_torchscript_program_is_not_for_python(folder: Path, tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "touched"), protocol=2)
    for record in ("data.pkl", "constants.pkl"):
        path = tmp_path / SCRIPT
        shutil.copy(folder / SCRIPT, path)
        rewrite(path, partial(replace, record, bomb))
        with pytest.raises(EngineError, match=r"model\.pt cannot be loaded"):
            TorchScriptModel([path])
    assert not (tmp_path / "touched").exists()


def replace(record: str, data: bytes, records: dict[str, bytes]) -> None:
    assert record in records
    records[record] = data


def use_pickle(records: dict[str, bytes]) -> None:
    config = json.loads(records["data/weights/model_weights_config.json"])
    next(iter(config["config"].values()))["use_pickle"] = True
    records["data/weights/model_weights_config.json"] = json.dumps(config).encode()


def evaluate(records: dict[str, bytes]) -> None:
    text = records["models/model.json"].decode()
    assert '"expr_str": "' in text
    changed = re.sub('"expr_str": "[^"]*"', '"expr_str": "__import__(\'os\').getpid()"', text, count=1)
    records["models/model.json"] = changed.encode()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda records, bomb: records.update({"data/sample_inputs/model.pt": bomb}), "holds sample inputs"),
        (lambda records, bomb: records.update({"data/weights/model.pt": bomb}), "holds more than an exported program"),
        (lambda records, bomb: records.update({"data/constants/opaque_obj_0": bomb}), "constants/opaque_obj_0"),
        (lambda records, bomb: records.update({"data/aotinductor/model/a.so": bomb}), "holds more than an"),
        (lambda records, bomb: use_pickle(records), "holds a pickle"),
        (lambda records, bomb: evaluate(records), "an expression with '__import__'"),
    ],
    ids=["sample inputs", "weights", "constant", "machine code", "tensor", "expression"],
)
def test_an_exported_program_with_anything_for_python_to_run_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, bytes], bytes], Any], problem: str
) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "touched"))
    rewrite(folder / STEP, lambda records: change(records, bomb))
    with pytest.raises(EngineError, match=problem) as caught:
        load(folder, exported=True)
    assert str(folder / STEP) in str(caught.value)
    assert not (tmp_path / "touched").exists()


class Nothing(torch.nn.Module):
    """No language model."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@pytest.mark.parametrize("exported", [False, True], ids=["torchscript", "torch.export"])
def test_another_program_is_refused(folder: Path, exported: bool) -> None:
    data = program(Nothing(), (torch.zeros(2),), ({},)) if exported else torchscript(Nothing())
    name = STEP if exported else SCRIPT
    (folder / name).write_bytes(data)
    with pytest.raises(EngineError, match=rf"{re.escape(name)} holds a program, but no language model; restore"):
        load(folder, exported=exported)


WITHOUT_THE_MODEL = """
import sys
import numpy as np
from pathlib import Path
from model.torchscript_model import TorchScriptModel
model = TorchScriptModel(Path(sys.argv[1]).iterdir())
model.advance(np.zeros((2, 3), np.int32), np.array([3, 1], np.int32), np.zeros((2, model.state_size), np.float32))
print(sorted(name for name in sys.modules if name.startswith(("model.pru", "model.language", "model.infer", "export"))))
"""


def test_a_program_runs_without_the_code_that_it_was_made_of(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_THE_MODEL, str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_silenced_are_the_deprecations_of_torchscript_and_no_other_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Any = torch.jit.load

    def noisy(*arguments: Any, **options: Any) -> Any:
        warnings.warn("something else", DeprecationWarning, stacklevel=2)
        return original(*arguments, **options)

    monkeypatch.setattr(torch.jit, "load", noisy)
    with pytest.raises(EngineError, match="something else"):
        load(folder)
