"""The allocator's setting, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
import torch
from training.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(8 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def page_faults(mode: str) -> int:
    """Pages that the system had to hand out for ten blocks of 32 MB, made and freed one after the other."""
    command = [sys.executable, "-c", SCRIPT, mode]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_blocks_are_used_again_instead_of_being_mapped_anew() -> None:
    assert page_faults("kept") < 100
    assert page_faults("default") > 100
