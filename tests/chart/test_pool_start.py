"""Pools start when their weights are downloaded: no pod holds a GPU before, and no upgrade stops pods that serve.

A real Helm computes and sends the changes, in both of its ways.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.cluster import Cluster, running_cluster
from tests.support.helm import Manifest, containers, environment, find, run_helm, template
from tests.support.kubernetes_api import NAMESPACE

SHARED = {"accessModes": ["ReadWriteMany"], "storageClassName": "files"}
GATEWAY = "vilix-gateway"
POOL = "vilix-m"


@pytest.fixture(params=[True, False], ids=["server-side", "three-way"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path, server_side=request.param) as running:
        yield running


def models(**entry: Any) -> str:
    """Return the setting with a model `m` of these values."""
    weights = {"repo": "us/model", "volume": SHARED, **entry.pop("weights", {})}
    return f"models={json.dumps({'m': {'weights': weights, **entry}})}"


def serve(cluster: Cluster, **entry: Any) -> None:
    """Install the chart with a model `m`, and let it start."""
    cluster.install(sets=[models(**entry)])
    cluster.complete_downloads()
    cluster.run_start_job()
    assert cluster.is_serving(POOL)


def test_an_installation_holds_no_gpu_until_the_weights_are_there(cluster: Cluster) -> None:
    cluster.install("values/qwen3-8b")
    pool = "vilix-qwen3-8b"
    assert GATEWAY in cluster.pods
    assert pool not in cluster.pods
    assert cluster.deployment(pool)["spec"]["replicas"] == 1
    cluster.run_start_job()
    assert pool not in cluster.pods, "the download has not ended"
    cluster.complete_downloads()
    cluster.run_start_job()
    assert cluster.is_serving(pool)
    assert cluster.start_jobs() == []


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({}, {}),
        ({}, {"replicas": 3}),
        ({}, {"autoscaling": {"kind": "hpa", "minReplicas": 2}}),
        ({}, {"weights": {"revision": "v2"}, "replicas": 2}),
        ({}, {"weights": {"source": "volume", "volume": {**SHARED, "existingClaim": "ours"}}}),
        ({"autoscaling": {"kind": "hpa"}}, {"autoscaling": {"kind": "hpa"}, "weights": {"repo": "us/other"}}),
        ({"autoscaling": {"kind": "hpa"}}, {"stallSeconds": 31}),
    ],
    ids=json.dumps,
)
def test_neither_an_upgrade_nor_a_rollback_stops_pods_that_serve(
    cluster: Cluster, first: dict[str, Any], then: dict[str, Any]
) -> None:
    serve(cluster, **first)
    upgraded = [models(**then)]
    for rolled_back_to in (0, 1, 2):
        if rolled_back_to:
            cluster.rollback(rolled_back_to)
        else:
            cluster.install(sets=upgraded)
        assert cluster.pods[POOL][0] > 0
        cluster.complete_downloads()
        if cluster.start_jobs():
            cluster.run_start_job()
        assert cluster.is_serving(POOL), "the change has reached the pods"
    assert cluster.fewest[POOL] > 0
    sent = [body["spec"] for _, kind, _, body in cluster.server.changes if kind == "deployments" and "spec" in body]
    assert sent
    assert [spec for spec in sent if spec.get("replicas") == 0] == []


def test_an_upgrade_with_the_same_weights_needs_no_job(cluster: Cluster) -> None:
    """What serves must not depend on the Job, and a fix must reach the pods without it."""
    serve(cluster)
    cluster.install(sets=[models(stallSeconds=31)])
    assert cluster.is_serving(POOL)
    assert cluster.start_jobs() == []
    assert "vilix-start" not in cluster.server.names("roles") | cluster.server.names("serviceaccounts")


def test_pods_of_a_new_revision_wait_without_gpus_while_the_old_ones_serve(cluster: Cluster) -> None:
    serve(cluster)
    before = cluster.pods[POOL]
    cluster.install(sets=[models(weights={"revision": "v2"})])
    assert cluster.pods[POOL] == before
    cluster.install(sets=[models(weights={"revision": "v2"}, stallSeconds=31)])
    assert cluster.pods[POOL] == before, "a further upgrade does not end the wait"
    cluster.complete_downloads()
    cluster.run_start_job()
    assert cluster.is_serving(POOL)
    assert "v2" in json.dumps(cluster.pods[POOL])


def test_a_revision_that_was_downloaded_ahead_is_served(cluster: Cluster) -> None:
    serve(cluster)
    cluster.install(sets=[models(weights={"nextRevision": "v2"})])
    assert cluster.is_serving(POOL)
    cluster.complete_downloads()
    cluster.install(sets=[models(weights={"revision": "v2"})])
    # The Job of the revision finds that it is complete, and removes old ones.
    cluster.complete_downloads()
    cluster.run_start_job()
    assert cluster.is_serving(POOL)


def test_an_upgrade_during_the_first_download_keeps_the_pool_waiting(cluster: Cluster) -> None:
    cluster.install(sets=[models()])
    first = cluster.start_jobs()
    cluster.install(sets=[models(), "gateway.maxConnections=100"])
    assert POOL not in cluster.pods
    assert cluster.start_jobs() != first, "the template of a Job cannot be changed"
    cluster.complete_downloads()
    cluster.run_start_job()
    assert cluster.is_serving(POOL)


def test_a_model_that_is_added_waits_and_the_others_serve(cluster: Cluster) -> None:
    serve(cluster)
    cluster.install("values/qwen3-8b", sets=["models.m.weights.repo=us/model", *_volume("m")])
    assert cluster.is_serving(POOL)
    assert "vilix-qwen3-8b" not in cluster.pods
    (job,) = cluster.start_jobs()
    assert [pool["deployment"] for pool in _pools(job)] == ["vilix-qwen3-8b"]


def test_a_pool_that_an_operator_has_paused_stays_paused(cluster: Cluster) -> None:
    serve(cluster)
    cluster.install(sets=[models(stallSeconds=31)])
    stored = cluster.server.objects["deployments", POOL]
    stored.update({**stored.content, "spec": {**stored.content["spec"], "paused": True}}, "kubectl-rollout")
    cluster.install(sets=[models(stallSeconds=31), "gateway.maxConnections=100"])
    assert cluster.deployment(POOL)["spec"]["paused"]
    assert cluster.start_jobs() == []


def test_the_number_of_pods_can_be_changed_after_the_start(cluster: Cluster) -> None:
    """Who writes `replicas` owns it, and Helm's next change would be a conflict."""
    serve(cluster)
    assert "helm" in cluster.server.objects["deployments", POOL].owners["spec", "replicas"]
    cluster.install(sets=[models(replicas=4)])
    assert cluster.pods[POOL][0] == 4


def test_pools_that_wait_can_be_started_without_the_job(cluster: Cluster) -> None:
    cluster.install(sets=[models()])
    cluster.install(sets=[models(), "startAfterDownload.enabled=false"])
    assert cluster.is_serving(POOL)
    assert cluster.start_jobs() == []


@pytest.mark.parametrize(
    "weights",
    [
        {"volume": {"ephemeral": True}},
        {"source": "volume", "volume": {"existingClaim": "ours"}},
        {"source": "image", "image": f"registry/w@sha256:{'0' * 64}"},
    ],
)
def test_pools_whose_weights_no_job_downloads_start_at_once(cluster: Cluster, weights: dict[str, Any]) -> None:
    cluster.install(sets=[models(weights=weights)])
    assert cluster.is_serving(POOL)
    assert cluster.start_jobs() == []


def test_manifests_that_are_rendered_without_a_cluster_pause_nothing() -> None:
    """Argo CD would pause again what the Job has resumed, whenever it compares."""
    manifests = template(sets=[models()])
    assert "paused" not in find(manifests, "Deployment", POOL)["spec"]
    assert not [m for m in manifests if m["metadata"]["name"].startswith("vilix-start")]


def test_the_job_may_only_read_the_downloads_and_patch_the_pools_that_wait(cluster: Cluster) -> None:
    cluster.install("values/qwen3-8b", "values/qwen2.5vl")
    manifests = cluster.server.manifests()
    (job,) = cluster.start_jobs()
    pools = _pools(job)
    assert find(manifests, "Role", "vilix-start")["rules"] == [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"], "resourceNames": [p["job"] for p in pools]},
        {
            "apiGroups": ["apps"],
            "resources": ["deployments"],
            "verbs": ["patch"],
            "resourceNames": ["vilix-qwen2-5vl", "vilix-qwen3-8b"],
        },
    ]
    assert find(manifests, "RoleBinding", "vilix-start")["subjects"] == [
        {"kind": "ServiceAccount", "name": "vilix-start", "namespace": NAMESPACE}
    ]
    # It has a token, and the downloads, which have the internet, have none.
    for each in (m for m in manifests if m["kind"] in ("Job", "Deployment", "StatefulSet")):
        spec = each["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is (each["metadata"]["name"] == job["metadata"]["name"])
    policy = find(manifests, "NetworkPolicy", "vilix-start")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert policy["ingress"] == []
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [[443, 6443, 16443]]
    (container,) = containers(job).values()
    assert not any("gpu" in resource for resource in container["resources"]["requests"])


def test_the_job_is_created_again_by_a_rollback(cluster: Cluster) -> None:
    """Helm does not run a Job again that is still there, and the pool would stay paused."""
    cluster.install(sets=[models()])
    (job,) = cluster.start_jobs()
    assert job["spec"]["ttlSecondsAfterFinished"] <= 60


def test_downloads_prefer_nodes_with_gpus_where_a_volume_belongs_to_a_node() -> None:
    """The volume is bound where its first pod runs."""

    def affinity(*sets: str) -> dict[str, Any]:
        manifests = template("values/qwen3-8b", sets=sets)
        (job,) = (m for m in manifests if m["kind"] == "Job")
        found: dict[str, Any] = job["spec"]["template"]["spec"].get("affinity", {}).get("nodeAffinity", {})
        return found

    preferred = affinity()["preferredDuringSchedulingIgnoredDuringExecution"]
    labels = [term["preference"]["matchExpressions"][0] for term in preferred]
    assert {"key": "nvidia.com/gpu.present", "operator": "Exists"} in labels
    assert affinity("models.qwen3-8b.nodeSelector.zone=a") == {}
    assert affinity("models.qwen3-8b.weights.job.nodeSelector.zone=a") == {}
    assert affinity(*_volume("qwen3-8b")) == {}


CHART_WITH_ZERO = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: vilix-m}
spec:
  replicas: 0
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: c, image: {{ .Values.image | default "one" }}}]}
"""


def test_a_rendered_number_of_zero_would_stop_pods_that_serve(cluster: Cluster, tmp_path: Path) -> None:
    """Why pools are paused instead of scaled: Helm compares with the live object, not with its last manifest."""
    chart = tmp_path / "zero"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: zero\nversion: 0.1.0\n")
    (chart / "templates" / "deployment.yaml").write_text(CHART_WITH_ZERO)
    cluster.chart = chart
    cluster.install()
    stored = cluster.server.objects["deployments", POOL]
    stored.update({**stored.content, "spec": {**stored.content["spec"], "replicas": 2}}, "kubectl-scale")
    cluster.reconcile()
    if cluster.server_side:
        arguments = ["--namespace", NAMESPACE, "--disable-openapi-validation", "--set", "image=two"]
        result = run_helm("upgrade", "vilix", chart, *arguments, kubeconfig=cluster.server.kubeconfig(tmp_path))
        assert result.returncode != 0
        assert "kubectl-scale: .spec.replicas" in result.stderr
    else:
        cluster.install(sets=["image=two"])
        assert cluster.pods[POOL][0] == 0


def _volume(model: str) -> list[str]:
    volume = f"models.{model}.weights.volume"
    return [f"{volume}.accessModes={json.dumps(SHARED['accessModes'])}", f"{volume}.storageClassName=files"]


def _pools(job: Manifest) -> list[dict[str, str]]:
    (container,) = containers(job).values()
    pools: list[dict[str, str]] = json.loads(environment(container)["VILIX_POOLS"])
    return pools
