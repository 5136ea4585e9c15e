"""What the libraries underneath would tell others is switched off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source import ROOT


@pytest.mark.parametrize("module", ["model.onnx_model", "model.onnx_cuda_model", "export.cli", "app.engines.onnx"])
def test_onnx_runtime_leaves_no_id_of_the_machine_and_reports_nothing(module: str, tmp_path: Path) -> None:
    """Its telemetry starts at import, by writing an id of the machine into the home folder."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-B", "-c", f"import {module}; import onnxruntime"],
        cwd=ROOT,
        env=environment | {"HOME": str(tmp_path)},
        check=True,
    )
    assert list(tmp_path.rglob("*onnxruntime*")) == []
