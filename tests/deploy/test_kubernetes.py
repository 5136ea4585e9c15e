"""The service on Kubernetes: every object is one by the cluster's own schemas, and all of them fit together."""

from __future__ import annotations

import math
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from app.engines.choice import CANDIDATES
from app.main import VERSION
from app.metrics import Metrics
from app.server import GRACE_SECONDS
from app.settings import Settings, variable_of
from benchmarks.service import PEAK_MEGABYTES, START_SECONDS
from tests.app.serving import make_app
from tests.deploy.objects import (
    BASE,
    FOLDERS,
    KUBERNETES,
    TRAINING,
    Objects,
    container,
    every_folder,
    every_service,
    megabytes,
    plain_environment,
)
from tests.source import ROOT

OLDEST, NEWEST = "1.30", "1.37"
"""Releases of Kubernetes whose schemas the objects keep to; the first has the pause before SIGTERM."""


def overlay(name: str) -> Objects:
    return Objects(KUBERNETES / "overlays" / name)


def compose(name: str) -> str:
    """The image of a service of the compose file."""
    image: str = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][name]["image"]
    return image


def test_these_are_what_users_apply() -> None:
    assert [str(folder.relative_to(KUBERNETES)) for folder in FOLDERS] == [
        "base", "overlays/gpu", "overlays/in-flight", "overlays/single", "training",
    ]  # fmt: skip


@every_folder
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_one_by_the_schemas_of_kubernetes_and_has_no_field_they_do_not_know(
    folder: Path, version: str
) -> None:
    for found in Objects(folder).all:
        assert kubernetes_validate.validate(found, version, strict=True).startswith(version)


def test_a_field_that_kubernetes_does_not_know_is_noticed() -> None:
    [account] = Objects(BASE).of("ServiceAccount").values()
    with pytest.raises(kubernetes_validate.ValidationError, match="automountToken"):
        kubernetes_validate.validate({**account, "automountToken": False}, NEWEST, strict=True)


@every_folder
def test_every_object_has_a_name_of_its_own_in_the_one_namespace(folder: Path) -> None:
    objects = Objects(folder)
    names = [(found["kind"], found["metadata"]["name"]) for found in objects.all]
    assert len(set(names)) == len(names)
    [(namespace, made)] = objects.of("Namespace").items()
    assert made["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert {found["metadata"]["namespace"] for found in objects.all if found is not made} == {namespace}


@every_folder
def test_every_pod_is_without_rights_and_writes_to_what_is_mounted_alone(folder: Path) -> None:
    for pod in Objects(folder).pods().values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container(pod)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["automountServiceAccountToken"] is False
        assert pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"} == set()
        assert all(volume.keys() & {"hostPath"} == set() for volume in pod.get("volumes", []))


@every_folder
def test_pods_are_given_no_variables_by_the_names_of_services(folder: Path) -> None:
    # A Service `pru` would set PRU_PORT to an address, which is no port.
    assert all(pod["enableServiceLinks"] is False for pod in Objects(folder).pods().values())


@every_folder
def test_what_is_mounted_is_a_volume_and_each_volume_is_mounted(folder: Path) -> None:
    objects = Objects(folder)
    for name, found in objects.workloads().items():
        pod = found["spec"]["template"]["spec"]
        claimed = {claim["metadata"]["name"] for claim in found["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | claimed
        mounts = container(pod)["volumeMounts"]
        assert sorted(mount["name"] for mount in mounts) == sorted(volumes), name
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        for volume in pod.get("volumes", []):
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in objects.of("PersistentVolumeClaim")
            if emptied := volume.get("emptyDir"):
                assert megabytes(emptied["sizeLimit"]) > 0


@every_service
def test_the_service_runs_as_the_images_user(folder: Path) -> None:
    [user] = re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    security = Objects(folder).pods()["pru"]["securityContext"]
    assert user == (str(security["runAsUser"]), str(security["runAsGroup"]))
    # Secrets and volumes belong to that group.
    assert security["fsGroup"] == security["runAsGroup"]


def test_images_are_those_of_compose_and_of_this_version() -> None:
    pods = Objects(BASE).pods()
    assert container(pods["pru"])["image"] == f"{compose('pru')}:{VERSION}"
    assert container(pods["redis"])["image"] == compose("redis")
    assert container(overlay("gpu").pods()["pru"])["image"] == f"{compose('gpu')}:{VERSION}"
    assert container(Objects(TRAINING).pods()["train"])["image"] == f"pru-training:{VERSION}"


@every_folder
def test_selectors_take_the_pods_of_the_workload_of_their_name(folder: Path) -> None:
    objects = Objects(folder)
    for name, found in objects.workloads().items():
        if found["kind"] != "Job":
            assert objects.pods_of(found["spec"]["selector"]) == {name}
        for constraint in found["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            assert objects.pods_of(constraint["labelSelector"]) == {name}
    for name, service in objects.of("Service").items():
        assert objects.pods_of({"matchLabels": service["spec"]["selector"]}) == {name}
    for name, budget in objects.of("PodDisruptionBudget").items():
        assert objects.pods_of(budget["spec"]["selector"]) == {name}


@every_service
def test_ports_have_one_number_and_one_name_from_the_setting_to_the_service(folder: Path) -> None:
    objects = Objects(folder)
    [image_port] = re.findall(r"PRU_PORT=(\d+)", (ROOT / "Dockerfile").read_text())
    pod = objects.pods()["pru"]
    assert container(pod)["ports"] == [{"name": "http", "containerPort": int(image_port)}]
    assert "PRU_PORT" not in objects.settings()
    for name, service in objects.of("Service").items():
        named = {port["name"] for port in container(objects.pods()[name])["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} == named


@every_service
def test_settings_are_settings_and_the_service_takes_them(folder: Path) -> None:
    objects = Objects(folder)
    given = objects.settings() | plain_environment(objects.pods()["pru"])
    variables = {variable_of(name): name for name in Settings.model_fields}
    assert given.keys() <= variables.keys()
    settings = Settings(**{variables[variable]: value for variable, value in given.items()})
    assert settings.engine in {"auto", *(candidate.engine for candidate in CANDIDATES)}
    assert not settings.allow_anonymous
    assert settings.keys_file is not None
    assert "metrics" not in settings.open_routes, "a gateway passes on what it is asked"
    assert "probes" in settings.open_routes, "a node has no key"


@every_service
def test_probes_ask_routes_that_there_are_and_that_need_no_key(folder: Path) -> None:
    found = container(Objects(folder).pods()["pru"])
    paths = {kind: found[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/health/ready", "readiness": "/health/ready", "liveness": "/health/live"}
    assert set(paths.values()) <= make_app().openapi()["paths"].keys()
    assert {found[f"{kind}Probe"]["httpGet"]["port"] for kind in paths} == {"http"}
    startup = found["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 10 * START_SECONDS


@every_service
def test_a_pod_is_given_longer_to_end_than_the_service_takes(folder: Path) -> None:
    objects = Objects(folder)
    pod = objects.pods()["pru"]
    pause = container(pod)["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = math.ceil(float(objects.settings()["PRU_DEADLINE_SECONDS"])) + GRACE_SECONDS
    assert pod["terminationGracePeriodSeconds"] > pause + drain
    # It is out of the Service by then: an endpoint goes as soon as the pod is told to end.
    assert pause >= 5


@pytest.mark.parametrize("folder", [BASE, KUBERNETES / "overlays" / "in-flight"], ids=lambda folder: folder.name)
def test_the_autoscaler_has_the_number_of_pods_and_more_than_the_budget_takes(folder: Path) -> None:
    objects = Objects(folder)
    [scaler] = objects.of("HorizontalPodAutoscaler").values()
    target = scaler["spec"]["scaleTargetRef"]
    deployment = objects.of(target["kind"])[target["name"]]
    assert target["apiVersion"] == deployment["apiVersion"]
    assert "replicas" not in deployment["spec"], "each apply would undo what the autoscaler did"
    [budget] = objects.of("PodDisruptionBudget").values()
    # A pod that cannot get ready would else keep its node from being emptied.
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert scaler["spec"]["maxReplicas"] > scaler["spec"]["minReplicas"] > budget["spec"]["maxUnavailable"] > 0
    # A share of the processor is one of what is asked for.
    assert container(deployment["spec"]["template"]["spec"])["resources"]["requests"]["cpu"]


def test_requests_in_flight_are_a_number_that_the_service_tells() -> None:
    [scaler] = overlay("in-flight").of("HorizontalPodAutoscaler").values()
    [metric] = scaler["spec"]["metrics"]
    assert f"# TYPE {metric['pods']['metric']['name']} gauge" in Metrics().exposition("")[0].decode()


@every_service
def test_a_pod_has_the_processor_of_its_threads_and_the_memory_of_its_processes(folder: Path) -> None:
    objects = Objects(folder)
    settings, resources = objects.settings(), container(objects.pods()["pru"])["resources"]
    workers = int(settings["PRU_WORKERS"])
    assert resources["requests"]["cpu"] == str(workers * int(settings["PRU_THREADS"]))
    assert "cpu" not in resources["limits"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    cache = Settings.model_fields["prefix_cache_bytes"].default / 1e6
    assert "PRU_PREFIX_CACHE_BYTES" not in settings
    assert megabytes(resources["limits"]["memory"]) >= workers * (PEAK_MEGABYTES + cache)


def test_one_pod_alone_keeps_its_sessions_on_a_volume_and_needs_nothing_else() -> None:
    objects = overlay("single")
    deployment = objects.of("Deployment")["pru"]["spec"]
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}, "two pods would write one file"
    assert objects.workloads().keys() == {"pru"}
    assert objects.of("HorizontalPodAutoscaler") == {}
    pod = objects.pods()["pru"]
    [store] = plain_environment(pod).values()
    [mount] = [mount for mount in container(pod)["volumeMounts"] if mount["name"] == "data"]
    assert store == f"sqlite:///{mount['mountPath']}/sessions.db"
    # The image's own place.
    assert f"PRU_SESSION_STORE={store}" in (ROOT / "Dockerfile").read_text()


def test_a_pod_on_a_gpu_has_one_and_names_the_engine_that_needs_it() -> None:
    objects = overlay("gpu")
    engine = objects.settings()["PRU_ENGINE"]
    assert {candidate.device for candidate in CANDIDATES if candidate.engine == engine} == {"cuda"}
    pod = objects.pods()["pru"]
    assert container(pod)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    # The rest is the base's.
    assert objects.settings() == Objects(BASE).settings() | {"PRU_ENGINE": engine}
    assert objects.of("HorizontalPodAutoscaler") == {}
    assert objects.of("Deployment")["pru"]["spec"]["replicas"] > 1
