"""deploy/kubernetes: valid, and true to the image, the settings and the documents."""

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from app.service import STOP_S
from app.settings import PROJECT, Settings
from app.tracing import PATIENCE_S
from tests import readme
from tests.deploy import compose

DIRECTORY = PROJECT / "deploy" / "kubernetes"
PAGE = (readme.DOCS / "kubernetes.md").read_text(encoding="utf-8")
VERSIONS = ["1.30", "1.34"]
"""The oldest that docs/kubernetes.md names, and a recent one."""

ENDPOINTS = {
    tuple(row[0].strip("`").split())
    for row in readme.Table.read(readme.README.read_text(encoding="utf-8"), "endpoint").rows
}
"""The README's table, by method and path."""

LABEL = {"app.kubernetes.io/name": "breedcam"}


def read(name: str) -> Any:
    return yaml.safe_load((DIRECTORY / name).read_text(encoding="utf-8"))


MANIFESTS: dict[str, Any] = {name: read(name) for name in read("kustomization.yaml")["resources"]}
POD = MANIFESTS["deployment.yaml"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
[PORT] = CONTAINER["ports"]


def default(setting: str) -> Any:
    return Settings.model_fields[setting].default


def test_kustomization_names_every_file() -> None:
    files = {path.name for path in DIRECTORY.iterdir()}
    assert files == {"kustomization.yaml", *MANIFESTS}
    assert read("kustomization.yaml")["labels"] == [{"pairs": LABEL}]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_follow_the_schemas(name: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_a_misspelt_field_is_noticed() -> None:
    manifest = yaml.safe_load(yaml.safe_dump(MANIFESTS["deployment.yaml"]))
    manifest["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


def test_selectors_choose_the_pods() -> None:
    template = MANIFESTS["deployment.yaml"]["spec"]["template"]
    assert template["metadata"]["labels"] == LABEL
    assert MANIFESTS["deployment.yaml"]["spec"]["selector"]["matchLabels"] == LABEL
    assert MANIFESTS["service.yaml"]["spec"]["selector"] == LABEL
    assert MANIFESTS["disruption-budget.yaml"]["spec"]["selector"]["matchLabels"] == LABEL
    assert MANIFESTS["network-policy.yaml"]["spec"]["podSelector"]["matchLabels"] == LABEL
    [spread] = POD["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"] == LABEL
    target = MANIFESTS["autoscaler.yaml"]["spec"]["scaleTargetRef"]
    assert target["name"] == MANIFESTS["deployment.yaml"]["metadata"]["name"]


def test_every_file_means_the_images_port() -> None:
    dockerfile = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    annotations = MANIFESTS["deployment.yaml"]["spec"]["template"]["metadata"]["annotations"]

    assert f"BREEDCAM_PORT={PORT['containerPort']} " in dockerfile
    assert f"EXPOSE {PORT['containerPort']}\n" in dockerfile
    assert annotations["prometheus.io/port"] == str(PORT["containerPort"])
    assert MANIFESTS["service.yaml"]["spec"]["ports"][0]["targetPort"] == PORT["name"]
    [rule] = MANIFESTS["network-policy.yaml"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": PORT["name"]}]
    for kind in ("startup", "readiness", "liveness"):
        assert CONTAINER[f"{kind}Probe"]["httpGet"]["port"] == PORT["name"]


def test_the_image_and_its_user_are_composes() -> None:
    [service] = compose.services("cpu").values()
    dockerfile = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    user = POD["securityContext"]

    assert CONTAINER["image"] == service["image"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in dockerfile
    assert f"--uid {user['runAsUser']} " in dockerfile
    assert CONTAINER["resources"]["limits"]["memory"] == service["mem_limit"].upper() + "i"


def test_the_pod_has_no_privileges() -> None:
    security = CONTAINER["securityContext"]
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["automountServiceAccountToken"] is False
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    # HOME of the image
    assert [mount["mountPath"] for mount in CONTAINER["volumeMounts"]] == ["/tmp"]


def test_probes_and_scrapes_are_answered() -> None:
    """tests/app checks what they answer."""
    annotations = MANIFESTS["deployment.yaml"]["spec"]["template"]["metadata"]["annotations"]
    probes = {kind: CONTAINER[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    paths = {kind: probe["httpGet"]["path"] for kind, probe in probes.items()}

    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    for path in (*paths.values(), annotations["prometheus.io/path"]):
        assert ("GET", path) in ENDPOINTS


def test_a_gpu_has_its_time_to_start() -> None:
    dockerfile = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    [*_, longest] = sorted(map(int, re.findall(r"--start-period=(\d+)s", dockerfile)))
    startup = CONTAINER["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= longest


def test_a_stop_outlasts_the_deadline() -> None:
    [_, pause] = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    stop_s = default("deadline_s") + STOP_S + PATIENCE_S  # service, then traces
    assert POD["terminationGracePeriodSeconds"] > float(pause) + stop_s


def test_variables_are_settings() -> None:
    names = [variable["name"] for variable in CONTAINER["env"]]
    assert "BREEDCAM_THREADS" in names
    assert Settings.unknown(names) == []


def test_variables_of_a_service_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why `enableServiceLinks` has to be false: Kubernetes sets these in each pod otherwise."""
    name = MANIFESTS["service.yaml"]["metadata"]["name"].upper()
    monkeypatch.setenv(f"{name}_PORT", "tcp://10.0.0.1:80")

    with pytest.raises(ValidationError, match="port"):
        Settings()
    assert POD["enableServiceLinks"] is False


# -- the autoscaler


@pytest.fixture
def metric() -> dict[str, Any]:
    [metric] = MANIFESTS["autoscaler.yaml"]["spec"]["metrics"]
    assert metric["type"] == "Pods"
    return dict(metric["pods"])


def test_the_service_has_the_autoscalers_metric(metric: dict[str, Any]) -> None:
    """docs/monitoring.md's table is that of the service, as tests/app shows."""
    page = (readme.DOCS / "monitoring.md").read_text(encoding="utf-8")
    kinds = {row[0]: row[1:3] for row in readme.Table.read(page, "metric", "type", "labels").rows}

    assert kinds[f"`{metric['metric']['name']}`"] == ("gauge", "")


def test_pods_are_added_before_requests_are_refused(metric: dict[str, Any]) -> None:
    wanted = int(metric["target"]["averageValue"])
    assert wanted == default("max_batch")
    assert wanted < default("max_pending")


def test_the_adapters_rule_provides_the_metric(metric: dict[str, Any]) -> None:
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]
    [rule] = [rule for block in blocks for rule in block.get("rules", [])]
    name = metric["metric"]["name"]

    assert rule["seriesQuery"].startswith(f"{name}{{")
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    assert "<<.Series>>" in rule["metricsQuery"]


def test_the_overlay_changes_the_bases_image() -> None:
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]
    [overlay] = [block for block in blocks if block.get("kind") == "Kustomization"]
    [image] = overlay["images"]

    assert image["name"] == CONTAINER["image"].partition(":")[0]
    assert overlay["resources"][0].endswith("deploy/kubernetes")
