"""The Kubernetes files: probes, times, rights and the numbers that must agree with the settings."""

from __future__ import annotations

import functools
import shutil
import subprocess
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from contracts.settings import ServerSettings
from service.setting_fields import setting_fields
from tests.shape_rules import ROOT

FOLDER = ROOT / "ops/kubernetes"
LABELS = {"app.kubernetes.io/name": "quire"}
MIN_STOP_MARGIN_S = 15
"""After the drain, for spans to be flushed and processes to end, before the kubelet kills."""
MIN_START_S = 300
MAX_LIVENESS_TIMEOUT_FRACTION = 0.5
"""Of the period: a slow answer must not look like several."""
KUBECTL = shutil.which("kubectl")
Document = dict[str, Any]


@functools.cache
def read_documents(name: str) -> list[Document]:
    return [document for document in yaml.safe_load_all((FOLDER / name).read_text("utf-8")) if document]


DEPLOYMENT = read_documents("deployment.yaml")[0]
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
VARIABLES = {entry["name"]: entry.get("value") for entry in CONTAINER["env"]}


def seconds_of(name: str) -> float:
    """A setting of the Deployment, or its default."""
    field = next(field for field in setting_fields() if field.name == name)
    return float(VARIABLES.get(field.variable) or getattr(ServerSettings(), name))


def test_pod_is_killed_only_after_its_drain_would_have_ended() -> None:
    drain_s = seconds_of("drain_delay_s") + seconds_of("drain_timeout_s")
    assert POD["terminationGracePeriodSeconds"] >= drain_s + MIN_STOP_MARGIN_S


def test_pod_takes_requests_until_it_is_no_endpoint_any_more() -> None:
    """Readiness must have failed, and been seen, before admission stops."""
    probe = CONTAINER["readinessProbe"]
    assert seconds_of("drain_delay_s") >= probe["failureThreshold"] * probe["periodSeconds"] + probe["timeoutSeconds"]


@pytest.mark.parametrize(
    ("probe", "path"),
    [("startupProbe", "/health/ready"), ("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")],
)
def test_probe_asks_on_its_own_path(probe: str, path: str) -> None:
    assert CONTAINER[probe]["httpGet"] == {"path": path, "port": "http"}


def test_startup_is_given_the_time_that_a_model_needs() -> None:
    probe = CONTAINER["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= MIN_START_S


def test_liveness_survives_a_replaced_engine() -> None:
    """It asks seldom, forgives twice, and not on the path that says no while the engine restarts."""
    probe = CONTAINER["livenessProbe"]
    assert probe["failureThreshold"] >= 3
    assert probe["timeoutSeconds"] <= MAX_LIVENESS_TIMEOUT_FRACTION * probe["periodSeconds"]
    assert probe["failureThreshold"] * probe["periodSeconds"] > 2 * ServerSettings().engine_timeout_s


def test_variables_are_settings_of_quire() -> None:
    known = {field.variable for field in setting_fields()}
    assert {name for name in VARIABLES if name.startswith("LLM_")} <= known


def test_keys_come_from_a_file_and_authentication_is_on() -> None:
    mounts = {mount["name"]: mount for mount in CONTAINER["volumeMounts"]}
    assert VARIABLES["LLM_API_KEYS_FILE"] == f"{mounts['keys']['mountPath']}/keys.toml"
    assert "subPath" not in mounts["keys"]
    assert {"LLM_API_KEYS", "LLM_INSECURE_NO_AUTH"}.isdisjoint(VARIABLES)


def test_pod_keeps_the_restricted_profile() -> None:
    pod_context, context = POD["securityContext"], CONTAINER["securityContext"]
    assert pod_context["runAsNonRoot"] is True
    assert pod_context["runAsUser"] >= 10_000
    assert pod_context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(POD)
    (namespace,) = read_documents("namespace.yaml")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_user_is_the_one_of_the_image() -> None:
    context = POD["securityContext"]
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in (ROOT / "ops/Dockerfile").read_text("utf-8")


def test_pod_has_no_token_of_the_cluster() -> None:
    assert POD["automountServiceAccountToken"] is False
    assert POD["enableServiceLinks"] is False


def test_root_is_read_only_and_what_is_written_is_an_empty_directory() -> None:
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
    empty = {volume["name"] for volume in POD["volumes"] if "emptyDir" in volume}
    written = {mount["mountPath"] for mount in CONTAINER["volumeMounts"] if mount["name"] in empty}
    assert written == {"/tmp", "/var/cache/quire"}  # noqa: S108 (a path of the container)


def test_every_mount_has_its_volume() -> None:
    volumes = {volume["name"] for volume in POD["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == volumes


def test_requests_are_limits() -> None:
    assert CONTAINER["resources"]["requests"] == CONTAINER["resources"]["limits"]


@pytest.mark.parametrize("name", ["LLM_NUM_THREADS", "LLM_KV_CACHE_MEMORY"])
def test_what_quire_reads_of_the_machine_is_said_for_the_container(name: str) -> None:
    assert name in VARIABLES


def test_budget_and_roll_out_leave_a_pod_serving() -> None:
    (budget,) = read_documents("poddisruptionbudget.yaml")
    assert 1 <= budget["spec"]["minAvailable"] < DEPLOYMENT["spec"]["replicas"]
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_selectors_find_the_pods() -> None:
    assert DEPLOYMENT["spec"]["template"]["metadata"]["labels"] == LABELS
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == LABELS
    assert read_documents("service.yaml")[0]["spec"]["selector"] == LABELS
    assert read_documents("poddisruptionbudget.yaml")[0]["spec"]["selector"]["matchLabels"] == LABELS


def test_service_names_the_port_of_the_container() -> None:
    (port,) = read_documents("service.yaml")[0]["spec"]["ports"]
    (named,) = CONTAINER["ports"]
    assert port["targetPort"] == named["name"]
    assert str(named["containerPort"]) == VARIABLES["LLM_PORT"]


def test_policy_denies_what_it_does_not_name() -> None:
    deny, allow = read_documents("networkpolicy.yaml")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert allow["spec"]["podSelector"]["matchLabels"] == LABELS
    assert all(rule["from"] for rule in allow["spec"]["ingress"])
    assert all(rule["to"] for rule in allow["spec"]["egress"])
    assert {port["port"] for rule in allow["spec"]["egress"] for port in rule["ports"]} == {53, 4317, 4318}


def test_example_secret_is_no_key_and_not_applied() -> None:
    (secret,) = read_documents("secret.example.yaml")
    (kustomization,) = read_documents("kustomization.yaml")
    assert secret["metadata"]["name"] == POD["volumes"][-1]["secret"]["secretName"]
    assert "sha256:REPLACE" in secret["stringData"]["keys.toml"]
    assert "secret.example.yaml" not in kustomization["resources"]


def test_every_other_file_is_applied() -> None:
    (kustomization,) = read_documents("kustomization.yaml")
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(kustomization["resources"]) == files


@pytest.mark.skipif(KUBECTL is None, reason="needs kubectl")
def test_kustomize_builds_and_leaves_the_selectors_alone() -> None:
    command = [str(KUBECTL), "kustomize", str(FOLDER)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    built = {(entry["kind"], entry["metadata"]["name"]): entry for entry in yaml.safe_load_all(done.stdout)}
    dns = built["NetworkPolicy", "quire"]["spec"]["egress"][0]["to"][0]["podSelector"]["matchLabels"]
    assert dns == {"k8s-app": "kube-dns"}
    assert built["Deployment", "quire"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 90
