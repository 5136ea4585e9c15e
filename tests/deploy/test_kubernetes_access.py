"""Who reaches whom on Kubernetes, and who reads which secret."""

from __future__ import annotations

import re
from pathlib import Path

from tests.deploy.objects import BASE, FOLDERS, KUBERNETES, Objects, container, every_folder, every_service
from tests.source import ROOT

GATEWAY, MONITORING = {"pru/gateway": "true"}, {"pru/monitoring": "true"}


def test_keys_are_a_folder_of_a_secret_that_only_the_service_reads() -> None:
    objects = Objects(BASE)
    pod = objects.pods()["pru"]
    [volume] = [volume for volume in pod["volumes"] if "secret" in volume]
    assert volume["secret"] == {"secretName": "pru-keys", "defaultMode": 0o440}
    [mount] = [mount for mount in container(pod)["volumeMounts"] if mount["name"] == volume["name"]]
    file = Path(objects.settings()["PRU_KEYS_FILE"])
    assert file.parent == Path(mount["mountPath"])
    assert file.name == "keys.toml"
    assert mount["readOnly"] is True
    assert "subPath" not in mount, "what is mounted so is never exchanged"


def secrets(folder: Path) -> set[tuple[str, str]]:
    """Secrets that pods need, each with its key."""
    found = set()
    for pod in Objects(folder).pods().values():
        for entry in container(pod).get("env", []):
            if secret := entry.get("valueFrom", {}).get("secretKeyRef"):
                found.add((secret["name"], secret["key"]))
        found |= {
            (volume["secret"]["secretName"], "keys.toml") for volume in pod.get("volumes", []) if "secret" in volume
        }
    return found


def test_secrets_are_made_as_the_page_says_and_none_is_in_the_files() -> None:
    assert secrets(BASE) == {("pru-redis", "password"), ("pru-keys", "keys.toml")}
    assert secrets(KUBERNETES / "overlays" / "single") == {("pru-keys", "keys.toml")}
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    for name, key in secrets(BASE):
        assert set(re.findall(rf"create secret generic {name} --from-file=(\S+)", page)) == {key}
    assert all(found["kind"] != "Secret" for folder in FOLDERS for found in Objects(folder).all)


@every_folder
def test_whatever_is_not_allowed_to_reach_a_pod_or_leave_it_does_not(folder: Path) -> None:
    objects = Objects(folder)
    policies = {name: found["spec"] for name, found in objects.of("NetworkPolicy").items()}
    assert policies.pop("nothing") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert policies.keys() == objects.workloads().keys()
    for name, policy in policies.items():
        assert objects.pods_of(policy["podSelector"]) == {name}
        assert policy["policyTypes"] == ["Ingress", "Egress"]


@every_service
def test_the_service_is_reached_by_the_gateway_and_prometheus_and_reaches_redis_and_names(folder: Path) -> None:
    objects = Objects(folder)
    policy = objects.of("NetworkPolicy")["pru"]["spec"]
    gateway, monitoring = policy["ingress"]
    for rule, label in ((gateway, GATEWAY), (monitoring, MONITORING)):
        assert rule == {"from": [{"namespaceSelector": {"matchLabels": label}}], "ports": [{"port": "http"}]}
        [name] = label
        assert f"{name}=true" in (ROOT / "docs" / "kubernetes.md").read_text()
    to_redis, to_names = policy["egress"]
    [port] = [port["containerPort"] for port in container(Objects(BASE).pods()["redis"])["ports"]]
    assert to_redis["ports"] == [{"port": port}]
    [to] = to_redis["to"]
    assert objects.pods_of(to["podSelector"]) == objects.pods().keys() & {"redis"}
    assert {(allowed["port"], allowed["protocol"]) for allowed in to_names["ports"]} == {(53, "UDP"), (53, "TCP")}


def test_redis_is_reached_by_the_service_alone_and_reaches_nothing() -> None:
    objects = Objects(BASE)
    policy = objects.of("NetworkPolicy")["redis"]["spec"]
    [rule] = policy["ingress"]
    [source] = rule["from"]
    assert objects.pods_of(source["podSelector"]) == {"pru"}
    assert source.keys() == {"podSelector"}
    assert rule["ports"] == [{"port": 6379}]
    assert "egress" not in policy
