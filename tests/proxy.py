"""A proxy of the tests' own, where the machine has one."""

from __future__ import annotations

from benchmarks.proxy import find_haproxy
from tests.commands import required


def required_haproxy() -> str:
    """The binary. Where there is none, the test is skipped, or fails where CI is to have one."""
    return required(find_haproxy(), "haproxy")
