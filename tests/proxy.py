"""A proxy of the tests' own, where the machine has one."""

from __future__ import annotations

import os

import pytest

from benchmarks.proxy import find_haproxy


def required_haproxy() -> str:
    """The binary. Where there is none, the test is skipped, or fails where CI is to have one."""
    binary = find_haproxy()
    if binary is None:
        missing = "needs haproxy (Debian and Ubuntu: apt-get install haproxy)"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return binary
