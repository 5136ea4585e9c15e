"""Every kernel compiles for a Hopper GPU, at the paper's sizes, whether or not there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.source import ROOT

SHARED_MEMORY = 227 << 10
"""Bytes that a program may take of a Hopper's multiprocessor."""


@pytest.mark.slow
def test_kernels_in_half_precision_compile_for_a_hopper_gpu_and_spill_no_registers() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.model.kernels.compiling"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert {report["kernel"].split()[0] for report in reports} == {"step", "sequence", "training", "head", "rows"}
    assert [report for report in reports if report["STACK"] or report["LOCAL"]] == []
    assert max(report["SHARED"] for report in reports) < SHARED_MEMORY
