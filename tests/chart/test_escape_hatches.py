"""What operators add to pods without changing the chart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.helm import Manifest, containers, find, template

COMMON: dict[str, Any] = {
    "podLabels": {"kueue.x-k8s.io/queue-name": "gpus"},
    "podAnnotations": {"reloader.stakater.com/auto": "true"},
    "nodeSelector": {"pool": "ai"},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "schedulerName": "kai-scheduler",
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["hub"]}],
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
    "extraVolumes": [{"name": "extra", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    "extraContainers": [{"name": "sidecar", "image": "sidecar"}],
    "extraInitContainers": [{"name": "first", "image": "first"}],
}
MODEL = {"weights": {"repo": "us/model"}}
WORKLOADS = [
    ("gateway", "Deployment", "vilix-gateway", ["gateway"]),
    ("models.m", "Deployment", "vilix-m", ["weights", "render", "triton", "worker"]),
    ("valkey", "StatefulSet", "vilix-valkey", ["valkey"]),
]


def with_values(path: str, values: dict[str, Any]) -> list[Manifest]:
    """Return the manifests with one model `m`, and with `values` at a path."""
    model = {**MODEL, **values} if path == "models.m" else MODEL
    sets = [f"models={json.dumps({'m': model})}"]
    if path != "models.m":
        sets += [f"{path}.{name}={json.dumps(value)}" for name, value in values.items() if not isinstance(value, str)]
        sets += [f"{path}.{name}={value}" for name, value in values.items() if isinstance(value, str)]
    return template(sets=sets)


@pytest.mark.parametrize(("path", "kind", "name", "own"), WORKLOADS)
def test_every_workload_takes_what_operators_add(path: str, kind: str, name: str, own: list[str]) -> None:
    workload = find(with_values(path, COMMON), kind, name)
    metadata, spec = workload["spec"]["template"]["metadata"], workload["spec"]["template"]["spec"]
    assert COMMON["podLabels"].items() <= metadata["labels"].items()
    assert COMMON["podAnnotations"].items() <= metadata["annotations"].items()
    for field in (
        "nodeSelector",
        "schedulerName",
        "priorityClassName",
        "runtimeClassName",
        "dnsConfig",
        "hostAliases",
        "topologySpreadConstraints",
    ):
        assert spec[field] == COMMON[field], field
    assert "nodeAffinity" in spec["affinity"]
    assert COMMON["tolerations"][0] in spec["tolerations"]
    assert COMMON["extraVolumes"][0] in spec["volumes"]
    assert spec["initContainers"][0]["name"] == "first"
    assert spec["containers"][-1]["name"] == "sidecar"
    for container in own:
        assert COMMON["extraVolumeMounts"][0] in containers(workload)[container]["volumeMounts"], container


def test_labels_of_operators_never_change_what_selects_pods() -> None:
    sets = ['commonLabels={"team": "ai", "app.kubernetes.io/component": "other"}']
    workload = find(template(sets=sets), "Deployment", "vilix-gateway")
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "ai"
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_common_labels_are_on_every_resource() -> None:
    manifests = template("values/qwen3-8b", sets=["commonLabels.team=ai"])
    assert [m["metadata"]["name"] for m in manifests if m["metadata"]["labels"].get("team") != "ai"] == []


def test_openshift_assigns_users_and_groups() -> None:
    sets = [f"podSecurityContext.{name}=null" for name in ("runAsUser", "runAsGroup", "fsGroup")]
    for workload in template("values/qwen3-8b", sets=sets):
        if workload["kind"] in ("Deployment", "StatefulSet", "Job"):
            context = workload["spec"]["template"]["spec"]["securityContext"]
            assert not context.keys() & {"runAsUser", "runAsGroup", "fsGroup"}
            assert context["runAsNonRoot"] is True


def test_large_numbers_and_groups_of_a_security_context_are_kept() -> None:
    sets = ["podSecurityContext.runAsUser=1000680000", "podSecurityContext.supplementalGroups=[2000, 1000680001]"]
    spec = find(template(sets=sets), "Deployment", "vilix-gateway")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsUser"] == 1000680000
    assert spec["securityContext"]["supplementalGroups"] == [2000, 1000680001]


def test_gpus_can_be_claimed_by_dynamic_resource_allocation() -> None:
    claims = [{"name": "gpus", "resourceClaimTemplateName": "two-gpus"}]
    workload = find(
        with_values("models.m", {"gpus": 2, "gpuResource": "", "resourceClaims": claims}), "Deployment", "vilix-m"
    )
    assert workload["spec"]["template"]["spec"]["resourceClaims"] == claims
    resources = containers(workload)["triton"]["resources"]
    assert resources["claims"] == [{"name": "gpus"}]
    assert "nvidia.com/gpu" not in resources["limits"]
    assert "--gpus=2" in containers(workload)["render"]["command"]


def test_pods_of_a_lost_node_are_replaced_soon() -> None:
    for workload in template("values/qwen3-8b", sets=["nodeLossSeconds=45"]):
        if workload["kind"] in ("Deployment", "StatefulSet"):
            tolerations = workload["spec"]["template"]["spec"]["tolerations"]
            seconds = {t["key"]: t["tolerationSeconds"] for t in tolerations if "tolerationSeconds" in t}
            assert seconds == {"node.kubernetes.io/not-ready": 45, "node.kubernetes.io/unreachable": 45}


def test_further_objects_are_rendered_as_templates() -> None:
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-extra"}},
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: text}\n",
    ]
    manifests = template(sets=[f"extraObjects={json.dumps(objects)}"])
    assert find(manifests, "ConfigMap", "vilix-extra")
    assert find(manifests, "ConfigMap", "text")
