"""`python -m benchmarks.many_machines [--texts N] [--rounds N] [--out FILE]`: Ray on this machine, and its costs.

Boundary: one Ray cluster of this machine's cores, and a Redis. The costs that it records are what docs/scale.md plans
with. Needs the extra `ray` and redis-server.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from app.on_ray.cluster import cluster
from app.settings import usable_cores
from benchmarks import harness, ray_scoring, ray_serving
from benchmarks.redis_server import DURABLE, running_redis
from model.errors import ConfigurationError
from model.files import read_json, write_json

BUNDLED = Path(__file__).parents[1] / "bundles" / "wikitext-2"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=20_000, help="texts to score")
    parser.add_argument("--rounds", type=int, default=3, help="runs of every alternative")
    parser.add_argument("--out", type=Path, help="JSON file for rows and costs, with what machine they are of")
    options = parser.parse_args()
    binary = shutil.which("redis-server")
    if binary is None:
        parser.error("redis-server is not installed")
    cores = usable_cores()
    with tempfile.TemporaryDirectory(prefix="pru-") as name, cluster():
        folder = Path(name)
        scoring, of_scoring = ray_scoring.rows(folder, BUNDLED, cores, options.texts, options.rounds)
        with running_redis(binary, folder, *DURABLE) as redis:
            serving, of_serving = ray_serving.rows(folder, BUNDLED, cores, redis, options.rounds)
    shown = {"scoring a corpus with Ray": scoring, "serving with Ray": serving}
    for title, rows in shown.items():
        harness.show(title, rows, Console())
    if options.out:
        harness.record(options.out, shown)
        record = read_json(options.out, ConfigurationError)
        write_json(options.out, record | {"costs": asdict(of_scoring) | asdict(of_serving)})


if __name__ == "__main__":
    main()
