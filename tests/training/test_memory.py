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


PEAK = """
import torch
from training.memory import peak_bytes

before = peak_bytes(torch.device("cpu"))
block = torch.ones(64 << 20)
del block
print(before, peak_bytes(torch.device("cpu")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counted as Linux counts it")
def test_the_peak_is_of_what_was_used_even_if_it_was_freed_since() -> None:
    command = [sys.executable, "-c", PEAK]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    # A block of 256 MiB, and little besides, whatever the process of the tests has had.
    assert 200 << 20 < after - before < 300 << 20
