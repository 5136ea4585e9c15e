"""What each package may import.

training → model ← export and app → model, and pru, the front door, all of them; no torch in serving but in engines made
of it; nothing of the service in its client but shapes; nothing that `pyproject.toml` does not declare.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Set
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.source import ROOT, imports, imports_of, modules, packages_of

MAY_IMPORT: dict[str, set[str]] = {
    "model": set(),
    "training": {"model"},
    "export": {"model"},
    "app": {"model"},
    "pru": {"app", "export", "model", "training"},
    "benchmarks": {"app", "export", "model", "pru", "training"},
    "docs": {"model", "pru", "training"},
    "tests": {"app", "benchmarks", "docs", "export", "model", "pru", "training"},
}
"""What each package may import of the others."""

SERVING = {"model.bundle", "model.config", "model.vocabulary"}
"""Where serving begins in `model`; it is made of these, of all of `app`, and of whatever they import."""

SHAPES = {"app.openai_schemas", "app.schemas", "app.session_schemas"}
"""Requests and answers, which the client shares with the service. Of the rest it knows `model.errors` alone."""

WITH_TORCH = {"app.engines.torchscript", "app.engines.fused"}
"""Engines that are made of torch. Only `LOADS_ENGINES` imports them, inside the function that loads the engine."""
LOADS_ENGINES = "app.engines.choice"

ON_RAY = ("app.corpus.", "app.on_ray.")
"""Where the extra `ray` is used, which all else runs without."""

IMPORT_ALL_WITHOUT_TORCH = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "training", "export"}:
            raise ImportError(f"serving must not import {name}")

sys.meta_path.insert(0, Refuse())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


IMPORT_THE_CLIENT = """
import sys
import pru
print(*sys.modules)
from pru import AsyncPRUClient, PRUClient
print(*sys.modules)
"""


def serving(without: Set[str] = frozenset()) -> dict[str, Path]:
    """The modules that a serving process is made of, those imported inside functions as well."""
    ours = modules("app") | modules("model")
    found: dict[str, Path] = {}
    waiting = (SERVING | modules("app").keys()) - without
    while waiting:
        name = waiting.pop()
        found[name] = ours[name]
        waiting |= (imports_of(ours[name]) & ours.keys()) - found.keys() - without
    return found


def declared(*extras: str) -> set[str]:
    """Names of the core dependencies and of those of some extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def undeclared(files: dict[str, Path], *extras: str) -> dict[str, set[str]]:
    """Imports, by module, of packages that neither the core dependencies nor the extras declare."""
    providers = {
        package: {canonicalize_name(name) for name in names} for package, names in packages_distributions().items()
    }
    allowed = declared(*extras)
    own = sys.stdlib_module_names | MAY_IMPORT.keys()
    foreign = {
        name: {package for package in packages_of(path) - own if not providers.get(package, set()) & allowed}
        for name, path in files.items()
    }
    return {name: packages for name, packages in foreign.items() if packages}


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
import a.b as c
from model import bundle
from . import near
if TYPE_CHECKING:
    import hidden
else:
    import seen
def later():
    from torch.nn import functional
"""
    assert set(imports(source)) == {"a.b", "model", "model.bundle", "seen", "torch.nn", "torch.nn.functional"}


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_import_along_the_arrows_only(package: str) -> None:
    forbidden = MAY_IMPORT.keys() - MAY_IMPORT[package] - {package}
    files = modules(package)
    assert files
    assert {name: bad for name, path in files.items() if (bad := packages_of(path) & forbidden)} == {}


def test_serving_names_no_torch_even_inside_a_function_but_in_engines_made_of_it() -> None:
    assert [name for name, path in serving(WITH_TORCH).items() if "torch" in packages_of(path)] == []


def test_engines_made_of_torch_are_imported_only_where_they_are_loaded() -> None:
    users = {name for name, path in serving().items() if imports_of(path) & WITH_TORCH}
    assert users <= {LOADS_ENGINES}


def test_serving_imports_where_torch_cannot_be_imported() -> None:
    names = sorted(name for name in serving(WITH_TORCH) if not name.endswith("__main__"))
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL_WITHOUT_TORCH, *names], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_client_knows_the_service_by_its_shapes_alone() -> None:
    ours = modules("app") | modules("export") | modules("model") | modules("training")
    client = modules("pru/client")
    assert len(client) > 5
    used = {name for path in client.values() for name in imports_of(path) & ours.keys()} - {"app", "model"}
    assert used == SHAPES | {"model.errors"}


def test_the_packages_that_the_clients_types_come_from_say_that_they_are_typed() -> None:
    packages = {name.partition(".")[0] for path in modules("pru/client").values() for name in imports_of(path)}
    assert {name for name in MAY_IMPORT if (ROOT / name / "py.typed").is_file()} == packages & MAY_IMPORT.keys()


def test_the_client_is_loaded_when_asked_for_and_without_the_service_or_an_engine() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_THE_CLIENT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before, after = ({name.partition(".")[0] for name in line.split()} for line in done.stdout.splitlines())
    assert before & {"app", "httpx2", "model", "pydantic"} == set()
    foreign = {"fastapi", "numpy", "onnxruntime", "redis", "starlette", "structlog", "torch", "training", "uvicorn"}
    assert after & foreign == set()
    loaded = set(done.stdout.splitlines()[1].split())
    assert {name for name in loaded if name.startswith(("app.", "model."))} == SHAPES | {"model.errors"}


def test_every_import_is_of_a_declared_dependency() -> None:
    without_ray = {name: path for name, path in serving(WITH_TORCH).items() if not name.startswith(ON_RAY)}
    assert undeclared(without_ray, "cpu", "traces") == {}
    assert undeclared(serving(), "cpu", "gpu", "traces", "ray") == {}
    assert undeclared(modules("model") | modules("training") | modules("export"), "cpu", "gpu", "train") == {}
    assert undeclared(modules("pru/client"), "client") == {}
    rest = modules("benchmarks") | modules("docs") | modules("tests")
    assert undeclared(rest, "cpu", "traces", "train", "ray", "dev") == {}
