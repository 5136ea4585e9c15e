"""What `kubectl kustomize` makes of a folder, for as much of it as this project's kustomizations use.

Boundary: a folder in, Kubernetes objects out; whatever else a kustomization asks for is an error. `test_kustomize`
holds it to the program itself, where that is installed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

KNOWN = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "images", "patches"}
CLUSTER = {"Namespace"}
"""Kinds that are in no namespace."""
KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}
"""Lists of a pod that are merged by the name of their members; all others are replaced."""
DELETE = {"$patch": "delete"}


def documents(text: str) -> list[Object]:
    """The objects of a file."""
    return [found for found in yaml.safe_load_all(text) if found]


def build(folder: Path) -> list[Object]:
    """The objects that a kustomization stands for."""
    objects, settings = _accumulate(folder)
    for name, data in settings.items():
        made = f"{name}-{hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:10]}"
        for holder in _holders(objects, "configMapRef", "configMap"):
            if holder["name"] == name:
                holder["name"] = made
        [config] = [found for found in objects if (found["kind"], found["metadata"]["name"]) == ("ConfigMap", name)]
        config["metadata"]["name"] = made
    return objects


def _accumulate(folder: Path) -> tuple[list[Object], dict[str, dict[str, str]]]:
    """Objects, and the generated ConfigMaps among them, whose names are not final yet."""
    file = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert file.keys() <= KNOWN, file.keys() - KNOWN
    objects: list[Object] = []
    generated: dict[str, dict[str, str]] = {}
    for name in file["resources"]:
        if (folder / name).is_dir():
            more, settings = _accumulate(folder / name)
            objects += more
            generated |= settings
        else:
            objects += documents((folder / name).read_text())
    for generator in file.get("configMapGenerator", []):
        _generate(folder, generator, objects, generated)
    for patch in file.get("patches", []):
        [change] = documents((folder / patch["path"]).read_text() if "path" in patch else patch["patch"])
        _patch(objects, change)
    for image in file.get("images", []):
        for container in _members(objects, "containers"):
            _rename(container, image)
    for found in objects:
        if found["kind"] in CLUSTER:
            found["metadata"]["name"] = file["namespace"]
        else:
            found["metadata"]["namespace"] = file["namespace"]
    return objects, generated


def _generate(folder: Path, generator: Object, objects: list[Object], generated: dict[str, dict[str, str]]) -> None:
    assert generator.keys() <= {"name", "behavior", "envs", "literals"}, generator.keys()
    lines = list(generator.get("literals", []))
    for name in generator.get("envs", []):
        lines += [line for line in (folder / name).read_text().splitlines() if line and not line.startswith("#")]
    data = dict(line.split("=", 1) for line in lines)
    name = generator["name"]
    if generator.get("behavior") == "merge":
        generated[name].update(data)
        return
    generated[name] = data
    objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})


def _patch(objects: list[Object], change: Object) -> None:
    def identity(found: Object) -> tuple[str, str, str]:
        return found["apiVersion"], found["kind"], found["metadata"]["name"]

    [target] = [found for found in objects if identity(found) == identity(change)]
    if DELETE.items() <= change.items():
        objects.remove(target)
    else:
        target.update(_merged(target, change))


def _merged(old: Any, new: Any, name: str = "") -> Any:
    """A strategic merge: mappings by their keys, lists of `KEYS` by their members' names; null takes away."""
    if isinstance(old, dict) and isinstance(new, dict):
        merged = old | {key: _merged(old.get(key), value, key) for key, value in new.items()}
        return {key: value for key, value in merged.items() if value is not None}
    if not (isinstance(old, list) and isinstance(new, list) and (key := KEYS.get(name))):
        return deepcopy(new)
    members = {member[key]: member for member in old}
    # What is new stands before what was there.
    added = [deepcopy(member) for member in new if member[key] not in members]
    for member in new:
        if DELETE.items() <= member.items():
            del members[member[key]]
        elif member[key] in members:
            members[member[key]] = _merged(members[member[key]], member)
    return added + list(members.values())


def _rename(container: Object, image: Object) -> None:
    name, _, tag = container["image"].partition(":")
    if name == image["name"]:
        tag = image.get("newTag", tag)
        container["image"] = image.get("newName", name) + (f":{tag}" if tag else "")


def _members(value: Any, name: str) -> Iterator[Object]:
    for found in _holders(value, name):
        yield from found


def _holders(value: Any, *names: str) -> Iterator[Any]:
    """What stands under these names, anywhere."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in names:
                yield inner
            else:
                yield from _holders(inner, *names)
    elif isinstance(value, list):
        for inner in value:
            yield from _holders(inner, *names)
