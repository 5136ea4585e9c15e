"""Fixtures and settings of the whole test suite. Imports no torch, so that tests of serving run without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from app.engines.probes import find_device
from model.errors import EngineError

# Models of a few hundred numbers: a second thread would only wait for the first, and longer on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Some tests import ONNX Runtime themselves; `model.onnx_model` says what it would do.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# Deadlines measure the machine's load rather than the code; on CI the same commit tries the same examples.
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session", autouse=True)
def _own_state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Services that tests start keep sessions in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with `ptb/` and `wikitext-2/`, each holding `train.txt`, `valid.txt` and `test.txt`."""
    value = os.environ.get("PRU_DATA_DIR")
    if not value:
        pytest.skip("needs the corpora: set PRU_DATA_DIR to a folder that holds ptb/ and wikitext-2/")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"PRU_DATA_DIR names {value}, which is not a folder", pytrace=False)
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where there is no GPU, skip a test that is marked `gpu`; fail it where `-m gpu` asked for such tests."""
    if item.get_closest_marker("gpu"):
        try:
            find_device()
        except EngineError as error:
            asked = item.config.option.markexpr == "gpu"
            (pytest.fail if asked else pytest.skip)(str(error))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses `data_dir`, so that `-m data` and `-m "not data"` select by what a test needs."""
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
