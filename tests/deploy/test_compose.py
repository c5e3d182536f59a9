"""docker-compose.yml: valid, and true to the files that it names."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from app.service import STOP_S
from app.settings import PROJECT, Settings
from app.tracing import PATIENCE_S
from tests import readme
from tests.deploy import compose

DOCKERFILE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
MONITORING = PROJECT / "deploy" / "monitoring"

OWN = ("COMPOSE_PROFILES", "DATA", "MEMORY", "PUBLISH")
"""Variables of docker-compose.yml."""

STARTS: list[tuple[tuple[str, ...], set[str]]] = [
    (("gpu",), {"breedcam"}),
    (("cpu",), {"breedcam-cpu"}),
    (("gpu", "monitoring"), {"breedcam", "prometheus", "grafana"}),
    (("cpu", "monitoring"), {"breedcam-cpu", "prometheus", "grafana"}),
    (("training",), {"training", "training-cpu"}),
]


def read(path: str) -> Any:
    return yaml.safe_load((MONITORING / path).read_text(encoding="utf-8"))


def test_the_file_follows_the_specification() -> None:
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(compose.COMPOSE)),
        ],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture(scope="module")
def docker_compose() -> list[str] | None:
    """The command, where it is installed."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    version = subprocess.run([docker, "compose", "version"], capture_output=True)
    return None if version.returncode else [docker, "compose"]


@pytest.mark.parametrize(("profiles", "started"), STARTS)
def test_profiles_start_their_services(
    profiles: Sequence[str], started: set[str], docker_compose: list[str] | None
) -> None:
    """As read here, and as docker compose reads it where it is installed."""
    chosen = compose.services(*profiles)
    assert set(chosen) == started

    ports = [
        published.rpartition(":")[0]
        for service in chosen.values()
        for published in service.get("ports", [])
    ]
    assert len(ports) == len(set(ports))

    if docker_compose:
        options = [part for profile in profiles for part in ("--profile", profile)]
        assert set(configured(docker_compose, *options)) == started


def configured(docker_compose: list[str], *options: str) -> dict[str, Any]:
    """The services of `docker compose config`."""
    done = subprocess.run(
        [*docker_compose, *options, "config", "--format", "json"],
        cwd=PROJECT,
        env={name: value for name, value in os.environ.items() if name not in OWN},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["services"])


def test_up_alone_serves_on_a_gpu(docker_compose: list[str] | None) -> None:
    [service] = compose.services(compose.default_profile()).values()
    [device] = service["deploy"]["resources"]["reservations"]["devices"]

    assert service["image"] == "breedcam:gpu"
    assert device["driver"] == "nvidia"
    if docker_compose:
        assert set(configured(docker_compose)) == {"breedcam"}


@pytest.mark.parametrize("name", ["breedcam", "breedcam-cpu"])
def test_the_service_is_limited_and_has_time_to_stop(name: str) -> None:
    service = compose.services("gpu", "cpu")[name]

    assert service["mem_limit"] == service["memswap_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"]["max-size"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["restart"] == "unless-stopped"
    stop_s = Settings.model_fields["deadline_s"].default + STOP_S + PATIENCE_S
    assert float(service["stop_grace_period"].removesuffix("s")) > stop_s


def test_docs_say_how_long_a_stop_takes() -> None:
    """The service's end, then that of the traces."""
    over_s = STOP_S + PATIENCE_S
    docs = {
        name: (PROJECT / "docs" / name).read_text(encoding="utf-8")
        for name in ("settings.md", "containers.md", "kubernetes.md", "operations.md")
    }
    assert f"at most {over_s:g} s after `BREEDCAM_DEADLINE_S`" in docs["settings.md"]
    assert f"takes up to {over_s:g} s more" in docs["containers.md"]
    assert f"ends at most {over_s:g} seconds after `BREEDCAM_DEADLINE_S`" in docs["kubernetes.md"]
    [supervisor_s] = re.findall(r"wait\n(\d+) s longer than", docs["operations.md"])
    [systemd_s] = re.findall(r"TimeoutStopSec=(\d+)", docs["operations.md"])
    assert float(supervisor_s) > over_s
    assert float(systemd_s) > Settings.model_fields["deadline_s"].default + over_s


def test_the_memory_of_a_cpu_is_more_than_the_service_takes_at_most() -> None:
    """docs/settings.md has what it takes; a GPU's service needs TensorFlow and CUDA beside it."""
    text = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    [most] = re.findall(r"^\| sum \| [\d.]+ GB \| ([\d.]+) GB;", text, re.M)
    limits = {
        name: float(service["mem_limit"].removesuffix("g")) * 1.024**3
        for name, service in compose.services("cpu", "gpu").items()
    }

    assert float(most) < limits["breedcam-cpu"] < limits["breedcam"]


def test_what_is_built_and_mounted_is_there() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.M))
    every = compose.services("cpu", "gpu", "monitoring", "training")

    assert len(every) == 6
    for service in every.values():
        assert service.get("build", {"target": "cpu"})["target"] in targets
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith(("./deploy", "./docs")):
                assert (PROJECT / source).exists(), volume


def test_only_one_image_has_each_name() -> None:
    """Each of a target and its arguments of its own: one build never takes another's name."""
    every = compose.services("cpu", "gpu", "training")
    images = {service["image"] for service in every.values()}

    assert len(images) == len(every)


# -- monitoring


def test_prometheus_scrapes_whichever_service_runs() -> None:
    config = read("prometheus.yml")
    [job] = config["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    host, port = target.split(":")

    for profile in ("gpu", "cpu"):
        [service] = compose.services(profile).values()
        assert host in service["networks"]["default"]["aliases"]
        assert service["environment"]["BREEDCAM_PORT"] == port
    # The alerts look for this job.
    assert job["job_name"] == "breedcam"


def test_prometheus_finds_the_alerts() -> None:
    config = read("prometheus.yml")
    mounts = compose.services("monitoring")["prometheus"]["volumes"]

    assert config["rule_files"] == ["alerts.yml"]
    assert "./docs/prometheus/alerts.yml:/etc/prometheus/alerts.yml:ro" in mounts
    assert "./deploy/monitoring/prometheus.yml:/etc/prometheus/prometheus.yml:ro" in mounts


def test_grafana_finds_data_and_dashboard() -> None:
    service = compose.services("monitoring")["grafana"]
    [source] = read("grafana/datasources/prometheus.yml")["datasources"]
    [provider] = read("grafana/dashboards/breedcam.yml")["providers"]

    assert source["url"] == "http://prometheus:9090"
    assert source["type"] == "prometheus"
    assert source["isDefault"] is True
    assert "./deploy/monitoring/grafana:/etc/grafana/provisioning:ro" in service["volumes"]
    assert f"./docs/grafana:{provider['options']['path']}:ro" in service["volumes"]
    home = service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/breedcam.json"
    assert (PROJECT / "docs" / "grafana" / "breedcam.json").is_file()


# -- commands


def test_commands_of_the_documents_name_services_and_profiles() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in readme.PAGES)
    every = compose.services("cpu", "gpu", "monitoring", "training")
    profiles = {profile for service in every.values() for profile in service["profiles"]}
    used = readme.commands(pages, "docker compose")

    assert len(used) >= 6
    for words in used:
        chosen = [words[i + 1] for i, word in enumerate(words) if word == "--profile"]
        assert set(chosen) <= profiles, words
        if "run" in words:
            assert set(words) & set(compose.services("training")), words
        elif not chosen:
            assert words[0] in ("build", "down", "logs", "up"), words
