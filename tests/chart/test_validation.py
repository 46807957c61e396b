"""The rendered manifests are valid for Kubernetes, and pass checkov except for justified exceptions."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.chart.conftest import MODELS
from tests.support.helm import CUSTOM, Manifest, program, template
from tests.support.repository import ROOT

DIGEST = f"sha256:{'0a' * 32}"
PINNED = [
    f"images.{image}.{setting}"
    for image in ("gateway", "worker", "triton", "tritonVllm", "valkey")
    for setting in (f"digest={DIGEST}", "pullPolicy=Always")
]
OPTIONAL = [
    "valkey.backup.enabled=true",
    "valkey.backup.restore=valkey-x.rdb",
    f'keys.list=[{{"name": "a", "digest": "{"0a" * 32}"}}]',
    "ingress.enabled=true",
    "ingress.host=ai.example.com",
    "traces.endpoint=http://collector.observability:4317",
    'traces.egress=[{"ports": [{"port": 4317}]}]',
    'traces.headersSecret={"name": "otlp", "key": "headers"}',
]
"""Values that the other files leave off."""
ACCEPTED = {
    "CKV_K8S_11": "no CPU limits: throttling would pause streams",
    "CKV_K8S_35": "secrets in variables: all services are set by variables, and none passes its environment on",
}
ACCEPTED_OF = {
    "Pod.ai.vilix-one-token": {
        "CKV_K8S_8": "liveness: the pod ends by itself within its deadline",
        "CKV_K8S_9": "readiness: the pod serves nothing",
        "CKV2_K8S_6": "network policy: the pod has no port, and runs only during helm test",
    },
    "Deployment.ai.vilix-deletion-cost": {
        "CKV_K8S_8": "liveness: each of its calls has a timeout",
        "CKV_K8S_9": "readiness: the pod serves nothing",
        "CKV_K8S_38": "the token of its account: it writes annotations of pods (docs/adr/0025)",
    },
    "Job.ai.vilix-start-x": {
        "CKV_K8S_38": "the token of its account: it resumes Deployments (docs/adr/0027)",
    },
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["1.30", "1.33", "1.37"])
def test_manifests_are_valid(
    version: str, production: list[Manifest], demo: list[Manifest], starting: list[Manifest], rendered: Path
) -> None:
    everything = [*production, *demo, *starting, *template(sets=OPTIONAL)]
    own = [m for m in everything if not m["apiVersion"].startswith(CUSTOM)]
    rendered.write_text(yaml.safe_dump_all(own))
    check = subprocess.run(
        [program("kubernetes-validate"), "-k", version, "--strict", rendered],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert check.stdout.count("passed") + check.stderr.count("passed") >= len(own)


def test_the_validator_reports_an_unknown_field(demo: list[Manifest], rendered: Path) -> None:
    (gateway,) = (m for m in demo if m["kind"] == "Deployment" and m["metadata"]["name"] == "vilix-gateway")
    gateway = json.loads(json.dumps(gateway))
    gateway["spec"]["template"]["spec"]["terminationGracePeriod"] = 5
    rendered.write_text(yaml.safe_dump(gateway))
    check = subprocess.run(
        [program("kubernetes-validate"), "-k", "1.33", "--strict", rendered],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert check.returncode != 0


NEWER_THAN_THE_SCHEMAS = {
    "spec.fallback.behavior": "KEDA 2.17 and newer; the last package of schemas for Python 3.11 has 2.16",
}
ROUTE_FIELDS = {
    "spec": {"parentRefs", "hostnames", "rules"},
    "rule": {"name", "matches", "filters", "timeouts", "retry", "sessionPersistence", "backendRefs"},
    "timeouts": {"request", "backendRequest"},
    "backendRef": {"group", "kind", "name", "namespace", "port", "weight", "filters"},
}
"""The fields of an HTTPRoute: https://gateway-api.sigs.k8s.io/reference/spec/."""


def _check_custom(manifests: list[Manifest], rendered: Path) -> list[str]:
    """Return what the schemas of custom resources do not allow. An API server drops unknown fields."""
    rendered.write_text(yaml.safe_dump_all(manifests))
    command = [program("python"), ROOT / "tests" / "support" / "chart_tools" / "custom_resources.py", rendered]
    check = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert not check.stderr, check.stderr
    return [line for line in check.stdout.splitlines() if line.rpartition(" ")[2] not in NEWER_THAN_THE_SCHEMAS]


def _custom(manifests: list[Manifest]) -> list[Manifest]:
    return [m for m in manifests if m["apiVersion"].startswith(CUSTOM[:3])]


@pytest.mark.timeout(300)
def test_custom_resources_are_valid(production: list[Manifest], rendered: Path) -> None:
    custom = _custom(production)
    assert {m["kind"] for m in custom} == {"ScaledObject", "Certificate", "ServiceMonitor", "PrometheusRule"}
    assert _check_custom(custom, rendered) == []


@pytest.mark.timeout(300)
def test_the_check_of_custom_resources_sees_unknown_fields_and_wrong_types(
    production: list[Manifest], rendered: Path
) -> None:
    scaled = json.loads(json.dumps(next(m for m in production if m["kind"] == "ScaledObject")))
    scaled["spec"]["minReplicas"] = 1
    (problem,) = _check_custom([scaled], rendered)
    assert "spec.minReplicas" in problem
    del scaled["spec"]["minReplicas"]
    scaled["spec"]["minReplicaCount"] = "many"
    assert _check_custom([scaled], rendered)


def test_a_route_has_only_fields_of_its_schema(production: list[Manifest]) -> None:
    route = next(m for m in production if m["kind"] == "HTTPRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"].keys() <= ROUTE_FIELDS["spec"]
    for rule in route["spec"]["rules"]:
        assert rule.keys() <= ROUTE_FIELDS["rule"]
        assert rule["timeouts"].keys() <= ROUTE_FIELDS["timeouts"]
        assert all(ref.keys() <= ROUTE_FIELDS["backendRef"] for ref in rule["backendRefs"])


@pytest.mark.timeout(300)
def test_checkov_reports_only_justified_exceptions(starting: list[Manifest], rendered: Path) -> None:
    rendered.write_text(yaml.safe_dump_all([*template(*MODELS, "values/production", sets=PINNED), *starting]))
    command = [program("checkov"), "--framework", "kubernetes", "--skip-download", "--compact", "-o", "json"]
    check = subprocess.run([*command, "-f", rendered], capture_output=True, text=True, timeout=280, check=False)
    report = json.loads(check.stdout)
    assert report["summary"]["passed"] > 500
    unexpected = [
        f"{failure['check_id']} {failure['check_name']}: {failure['resource']}"
        for failure in report["results"]["failed_checks"]
        if failure["check_id"] not in ACCEPTED and failure["check_id"] not in ACCEPTED_OF.get(failure["resource"], {})
    ]
    assert not unexpected
    failed = {(failure["resource"], failure["check_id"]) for failure in report["results"]["failed_checks"]}
    assert ACCEPTED.keys() <= {check for _, check in failed}, "an exception is no longer needed"
    of_one = {(resource, check) for resource, checks in ACCEPTED_OF.items() for check in checks}
    assert of_one <= failed, "an exception is no longer needed"
