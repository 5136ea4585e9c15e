"""Compose's profiles: replicas with a proxy and Redis, and monitoring, held to the service they belong to."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from app.metrics import Metrics
from app.settings import Settings
from benchmarks.proxy import CONFIGURATION
from tests.proxy import required_haproxy
from tests.source import ROOT

DEPLOY = ROOT / "deploy"
OURS = {"pru", "pru-gpu"}
"""Images that are built from this checkout."""


def services() -> dict[str, dict[str, Any]]:
    """Every service of the compose file."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def test_one_service_runs_unless_more_is_asked_for() -> None:
    profiles = {name: service.get("profiles") for name, service in services().items()}
    assert profiles == {
        "pru": None,
        "gpu": ["gpu"],
        "replica": ["scale"],
        "redis": ["scale"],
        "proxy": ["scale"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }


def test_every_service_is_confined_and_reached_from_the_loopback_alone() -> None:
    for name, service in services().items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service.keys() & {"cap_add", "devices", "ipc", "network_mode", "pid", "privileged"} == set(), name


def test_what_only_this_machine_reaches_is_open_without_keys_and_takes_the_callers() -> None:
    ours = [service for service in services().values() if service["image"] in OURS]
    assert len(ours) == 3
    for service in ours:
        assert service["environment"]["PRU_ALLOW_ANONYMOUS"] == "true"
        assert service["environment"]["PRU_KEYS"] == "${PRU_KEYS:-}"
    for name in ("Dockerfile", "Dockerfile.gpu"):
        assert "PRU_HOST=0.0.0.0" in (ROOT / name).read_text()
        assert "PRU_ALLOW_ANONYMOUS=true \\" not in (ROOT / name).read_text()


def test_images_of_others_are_named_with_their_version() -> None:
    images = {service["image"] for service in services().values()} - OURS
    assert len(images) == 4
    for image in images:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+[.\d]*(-alpine)?", image), image


def test_folders_that_are_mounted_are_there_and_only_read() -> None:
    mounted = [
        volume.split(":")
        for service in services().values()
        for volume in service.get("volumes", [])
        if volume[0] == "."
    ]
    assert len(mounted) == 4
    for source, _, mode in mounted:
        assert (ROOT / source).is_dir()
        assert mode == "ro"


def test_the_service_on_a_gpu_is_the_other_one_with_a_gpu() -> None:
    plain, gpu = services()["pru"], services()["gpu"]
    assert {name for name in plain.keys() | gpu.keys() if plain.get(name) != gpu.get(name)} == {
        "profiles", "build", "image", "ports", "environment", "tmpfs", "volumes", "deploy",
    }  # fmt: skip
    assert (ROOT / gpu["build"]["dockerfile"]).is_file()
    assert gpu["environment"] == {**plain["environment"], "PRU_ENGINE": "auto"}
    assert gpu["volumes"] == ["gpu-data:/data"]
    # Triton compiles libraries into it and loads them from there.
    assert gpu["tmpfs"] == ["/tmp:exec"]
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_services_on_one_machine_have_ports_of_their_own() -> None:
    ports = [port.split(":")[1:3] for service in services().values() for port in service.get("ports", [])]
    defaults = [re.sub(r"\D", "", default) for _, default in ports]
    assert len(set(defaults)) == len(defaults)


def test_what_redis_acknowledged_is_on_the_disk() -> None:
    command = services()["redis"]["command"]
    for option in ("--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction"):
        assert option in command
    address = services()["replica"]["environment"]["PRU_SESSION_STORE"]
    assert address == "redis://redis:6379/0"


def test_the_proxy_waits_for_longer_than_the_service_takes_and_looks_for_its_replicas() -> None:
    text = CONFIGURATION.read_text()
    deadline = Settings.model_fields["deadline_seconds"].default
    for side in ("client", "server"):
        [seconds] = re.findall(rf"^    timeout {side} (\d+)s$", text, re.MULTILINE)
        assert int(seconds) > deadline
    assert "option httpchk GET /health/ready" in text
    assert re.search(r"server-template replica \d+ replica:8000 ", text)
    assert "retry-on conn-failure\n" in text, "anything else may repeat what has been done"


def test_prometheus_asks_every_service_of_ours() -> None:
    [job] = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    [names] = job["dns_sd_configs"]
    ours = [name for name, service in services().items() if service["image"] in OURS]
    assert names["names"] == ours
    assert names["port"] == 8000


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "pru.json").read_text())
    return found


def kinds() -> dict[str, str]:
    """The kind of every number of the service, by its name."""
    body, _ = Metrics().exposition("")
    families = re.findall(r"^# TYPE (\w+) (\w+)$", body.decode(), re.M)
    return {name.removesuffix("_total"): kind for name, kind in families if not name.endswith("_created")}


def series() -> set[str]:
    """Names by which queries may ask for them."""
    suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
    return {name + suffix for name, kind in kinds().items() for suffix in suffixes[kind]}


def test_the_dashboard_shows_every_number_of_the_service_and_no_other() -> None:
    queries = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    used = {name for query in queries for name in re.findall(r"\bpru_\w+", query)}
    assert used <= series()
    shown = {name for name in kinds() if any(query.startswith(name) for query in used)}
    assert kinds().keys() - shown == {"pru_model_info"}


class Part(BaseModel):
    """Refuses fields that Prometheus does not know, as it does."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Annotations(Part):
    summary: Annotated[str, Field(min_length=20, max_length=120)]
    runbook: Annotated[str, Field(min_length=80)]


class Labels(Part):
    severity: Literal["page", "ticket"]


class Alert(Part):
    alert: Annotated[str, Field(pattern="^[A-Z][A-Za-z]+$")]
    expr: str
    lasting: Annotated[str | None, Field(alias="for", pattern="^[0-9]+[mh]$")] = None
    labels: Labels
    annotations: Annotations


class Group(Part):
    name: str
    rules: list[Alert]


class Rules(Part):
    groups: list[Group]


def alerts() -> list[Alert]:
    """Every alert that Prometheus is given."""
    folder = DEPLOY / "prometheus"
    [name] = yaml.safe_load((folder / "prometheus.yml").read_text())["rule_files"]
    [group] = Rules.model_validate(yaml.safe_load((folder / name).read_text())).groups
    return group.rules


def test_alerts_have_names_of_their_own_and_speak_of_numbers_that_there_are() -> None:
    names = [alert.alert for alert in alerts()]
    assert sorted(set(names)) == sorted(names)
    assert set(names) == {
        "ServiceDown", "NotReady", "Errors", "Slow", "Overloaded", "ProcessesReplaced", "SessionStoreUnavailable",
        "ModelsBroken", "KeyOverQuota", "SessionsGrow",
    }  # fmt: skip
    used = {name for alert in alerts() for name in re.findall(r"\bpru_\w+", alert.expr)}
    assert used <= series()
    assert all("pru_" in alert.expr or alert.alert == "ServiceDown" for alert in alerts())


def test_alerts_ask_for_labels_that_their_numbers_have() -> None:
    metrics = Metrics()
    metrics.answered("POST", "/predict", 200, 0.1)
    metrics.over_quota("alice")
    body = metrics.exposition("", by_key=True)[0].decode()
    for alert in alerts():
        for labels in re.findall(r"by \(([a-z, ]+)\)", alert.expr):
            named = set(labels.split(", ")) - {"instance"}
            assert all(f'{label}="' in body for label in named), alert.alert


def test_alerts_balance_their_brackets_and_annotations_name_settings_that_there_are() -> None:
    settings = {f"PRU_{name.upper()}" for name in Settings.model_fields}
    for alert in alerts():
        for opening, closing in ("()", "[]", "{}"):
            assert alert.expr.count(opening) == alert.expr.count(closing), alert.alert
        assert set(re.findall(r"\bPRU_[A-Z_]+", alert.annotations.runbook)) <= settings


def test_the_alert_on_slowness_is_half_of_the_deadline() -> None:
    [slow] = [alert for alert in alerts() if alert.alert == "Slow"]
    assert slow.expr.endswith(f"> {Settings.model_fields['deadline_seconds'].default / 2:g}")


def test_log_lines_that_runbooks_name_are_written() -> None:
    source = "".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    named = {line for alert in alerts() for line in re.findall(r'"([a-z ]+)"', alert.annotations.runbook)}
    assert named >= {"a worker ended", "the session store failed"}
    assert {line for line in named if f'"{line}"' not in source} == set()


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    [port] = services()["prometheus"]["ports"]
    assert source["url"] == f"http://prometheus:{port.rpartition(':')[2]}"
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"]} == {source["uid"]}
    [provider] = yaml.safe_load((provisioning / "dashboards" / "pru.yml").read_text())["providers"]
    mounts = [volume.split(":") for volume in services()["grafana"]["volumes"] if volume[0] == "."]
    assert {target: Path(source).name for source, target, _ in mounts} == {
        provider["options"]["path"]: "dashboards",
        "/etc/grafana/provisioning": "provisioning",
    }


def test_grafana_is_looked_at_without_a_name_and_changed_by_nobody() -> None:
    environment = services()["grafana"]["environment"]
    access = {name: value for name, value in environment.items() if name.startswith(("GF_AUTH_", "GF_SECURITY_"))}
    assert access == {
        "GF_AUTH_ANONYMOUS_ENABLED": "true",  # As a viewer, unless a role is named.
        "GF_AUTH_BASIC_ENABLED": "false",
        "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
    }


def test_haproxy_accepts_its_configuration() -> None:
    done = subprocess.run(
        [required_haproxy(), "-c", "-f", str(CONFIGURATION)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("panel", dashboard()["panels"], ids=lambda panel: panel["title"])
def test_a_panel_of_the_dashboard_has_balanced_queries_and_a_place_of_its_own(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert target["expr"].count("(") == target["expr"].count(")")
        assert target["legendFormat"]
    place = (panel["gridPos"]["x"], panel["gridPos"]["y"])
    assert [(other["gridPos"]["x"], other["gridPos"]["y"]) for other in dashboard()["panels"]].count(place) == 1
