"""The objects of `deploy/kubernetes`, and what tests ask of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.deploy.kustomize import Object, build
from tests.source import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
FOLDERS = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))
"""Every folder that is applied as a whole."""
SERVING = [folder for folder in FOLDERS if folder.name != "training"]
BASE, TRAINING = KUBERNETES / "base", KUBERNETES / "training"


class Objects:
    """What one folder stands for, by kind and name."""

    def __init__(self, folder: Path) -> None:
        self.all = build(folder)

    def of(self, kind: str) -> dict[str, Object]:
        """Objects of a kind by their names."""
        return {found["metadata"]["name"]: found for found in self.all if found["kind"] == kind}

    def workloads(self) -> dict[str, Object]:
        """What has pods, by name."""
        return self.of("Deployment") | self.of("StatefulSet") | self.of("Job")

    def pods(self) -> dict[str, Object]:
        """The pods' specifications by their workloads' names."""
        return {name: found["spec"]["template"]["spec"] for name, found in self.workloads().items()}

    def pods_of(self, selector: Object) -> set[str]:
        """Workloads whose pods a selector takes."""
        wanted = selector.get("matchLabels", {}).items()
        assert selector.keys() <= {"matchLabels"}
        return {
            name
            for name, found in self.workloads().items()
            if wanted <= found["spec"]["template"]["metadata"]["labels"].items()
        }

    def settings(self) -> dict[str, str]:
        """Environment that the service's pod gets of its ConfigMap."""
        [source] = container(self.pods()["pru"])["envFrom"]
        data: dict[str, str] = self.of("ConfigMap")[source["configMapRef"]["name"]]["data"]
        return data


def container(pod: Object) -> Object:
    """The one container of a pod."""
    [found] = pod["containers"]
    assert isinstance(found, dict)
    return found


def plain_environment(pod: Object) -> dict[str, Any]:
    """Variables of the container that have a value there."""
    return {entry["name"]: entry["value"] for entry in container(pod).get("env", []) if "value" in entry}


def megabytes(quantity: str) -> float:
    """A size of Kubernetes or Redis in megabytes."""
    units = {"Gi": 2**30, "Mi": 2**20, "gb": 2**30, "mb": 2**20}
    return float(quantity[:-2]) * units[quantity[-2:]] / 1e6
