"""The tests' own reading of kustomizations is that of kustomize."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.kustomize import Object, build, documents
from tests.deploy.objects import FOLDERS

SUM = re.compile(r"(pru-settings)-[0-9a-z]{10}")
"""A name that ends in a sum of the content; ours is another sum."""


def comparable(objects: list[Object]) -> dict[tuple[str, str], Any]:
    """Objects by kind and name, in any order; named lists of a pod as well."""
    return {(found["kind"], SUM.sub(r"\1", found["metadata"]["name"])): _plain(found) for found in objects}


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case [{"name": _}, *_]:
            return {member["name"]: _plain(member) for member in value}
        case list():
            return [_plain(inner) for inner in value]
        case str():
            return SUM.sub(r"\1", value)
    return value


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_the_tests_build_is_what_kustomize_builds(folder: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl, which Debian has in a version too old to build these folders")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert comparable(build(folder)) == comparable(documents(done.stdout))


def test_settings_that_change_give_the_config_map_another_name(tmp_path: Path) -> None:
    names = []
    for threads in (1, 2, 1):
        (tmp_path / "settings.env").write_text(f"# of the engine\nPRU_THREADS={threads}\n")
        (tmp_path / "kustomization.yaml").write_text(
            "namespace: pru\nresources: []\nconfigMapGenerator: [{name: settings, envs: [settings.env]}]\n"
        )
        [made] = build(tmp_path)
        assert made["data"] == {"PRU_THREADS": f"{threads}"}
        names.append(made["metadata"]["name"])
    assert names[0] == names[2] != names[1]


def test_what_the_tests_do_not_know_of_kustomize_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("namespace: pru\nresources: []\nnamePrefix: mine-\n")
    with pytest.raises(AssertionError, match="namePrefix"):
        build(tmp_path)
