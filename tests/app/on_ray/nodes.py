"""Two nodes' worth of Ray's processes on this machine, in a process of their own: `python -m tests.app.on_ray.nodes`.

The program prints the cluster's address, ends its second node or adds another at a line that says so, and ends all at
the end of its input.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.source import ROOT

STORE_BYTES = 80 << 20
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Nothing is reported, and nothing listens but on the loopback."""
PROMPT = {"RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1"}
"""Serve would hear of waits every ten seconds."""


class Nodes:
    """A cluster of two nodes of one core each."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process = process
        self.environment = os.environ | ENVIRONMENT | {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
        """What a program needs that is to use it."""

    def lose_one(self) -> None:
        """End the node that is not the head, as a power cut would."""
        self._order("lose")

    def gain_one(self) -> None:
        """Add a node of one core."""
        self._order("gain")

    def _order(self, what: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        assert f"did {what}\n" in self._process.stdout


def need_ray() -> None:
    """Skip where Ray is not installed; fail where CI is to have it."""
    if find_spec("ray") is None:
        missing = "needs Ray: pip install '.[ray]'"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


@contextmanager
def two_nodes(folder: Path) -> Iterator[Nodes]:
    """A running cluster, whose log is in a folder."""
    need_ray()
    with (folder / "nodes.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.app.on_ray.nodes"],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT | PROMPT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        # What Ray itself says on standard output comes before.
        address = next((line.split()[1] for line in process.stdout if line.startswith("address ")), None)
        assert address, (folder / "nodes.log").read_text()
        yield Nodes(process, address)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def processes_named(beginning: str) -> list[int]:
    """Processes of this machine whose title begins so, the eldest first."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(beginning.encode()):
            found.append(int(folder.name))
    return sorted(found)


def main() -> None:
    """Be the cluster."""
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster: Any = Cluster(initialize_head=True, head_node_args=node)
    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        print(f"address {cluster.address}", flush=True)
        for order in sys.stdin:
            if order == "lose\n":
                cluster.remove_node(second, allow_graceful=False)
            else:
                cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
            print(f"did {order}", end="", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
