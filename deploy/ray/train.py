"""Train one model by several processes on the machines of a Ray cluster.

    python deploy/ray/train.py --processes 4 --gpu -- --data /shared/my-text.txt --out /shared/runs/mine

Ray chooses the places; each process is then told what `torchrun` would tell it, and runs `python -m training train`
with what stands after `--`. Every machine has this project's packages and sees the same folders by the same paths.

Boundary: places and environments of processes. How they train together is `training.world`'s business.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys


class Place:
    """One process's place: a part of a machine that Ray keeps for it."""

    def address(self) -> tuple[str, int]:
        """The machine's address, and a port of it that is free."""
        import ray  # noqa: PLC0415 - takes seconds to load, and is needed for nothing but to train

        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def train(self, environment: dict[str, str], arguments: list[str]) -> int:
        """Train; the exit status."""
        command = [sys.executable, "-m", "training", "train", *arguments]
        return subprocess.run(command, env=os.environ | environment, check=False).returncode


def environments(address: str, port: int, size: int) -> list[dict[str, str]]:
    """What each of `size` processes is told; each has its GPU for itself, so that it is the first of its place."""
    shared = {"MASTER_ADDR": address, "MASTER_PORT": f"{port}", "WORLD_SIZE": f"{size}", "LOCAL_RANK": "0"}
    return [shared | {"RANK": f"{rank}"} for rank in range(size)]


def train(processes: int, cpus: int, gpu: bool, arguments: list[str]) -> int:
    """Train by so many processes, on the cluster that Ray finds (`RAY_ADDRESS`), or else on this machine.

    Returns 0, or the status of the first that failed, which ends the others.
    """
    # Ray would report its use to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray  # noqa: PLC0415 - see above

    ray.init()
    actor = ray.remote(num_cpus=cpus, num_gpus=int(gpu))(Place)
    places = [actor.options(scheduling_strategy="SPREAD").remote() for _ in range(processes)]
    told = environments(*ray.get(places[0].address.remote()), processes)
    running = [place.train.remote(own, arguments) for place, own in zip(places, told, strict=True)]
    while running:
        [ended], running = ray.wait(running)
        if status := ray.get(ended):
            return int(status)
    return 0


def _count(text: str) -> int:
    """A number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    """Read the command line, and train."""
    parser = argparse.ArgumentParser(description="Train one model by several processes on a Ray cluster.")
    parser.add_argument("--processes", type=_count, required=True, help="how many")
    parser.add_argument("--cpus", type=_count, default=1, help="processors kept for each")
    parser.add_argument("--gpu", action="store_true", help="keep a GPU for each")
    parser.add_argument("arguments", nargs="+", help="after --: those of `python -m training train`")
    given = parser.parse_args()
    sys.exit(train(given.processes, given.cpus, given.gpu, given.arguments))


if __name__ == "__main__":
    main()
