"""The volumes of weights: they bind, never block an update, and are filled by a Job that needs no GPU."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.helm import Manifest, containers, environment, find, template, try_template

RWX = {"accessModes": ["ReadWriteMany"], "storageClassName": "files"}


def pool(**entry: Any) -> list[Manifest]:
    """Return the manifests with a model `m` of these values."""
    weights = {"repo": "us/model", **entry.pop("weights", {})}
    return template(sets=[f"models={json.dumps({'m': {'weights': weights, **entry}})}"])


def rejection(**entry: Any) -> str:
    """Return the message with which a model `m` of these values is rejected."""
    weights = {"repo": "us/model", **entry.pop("weights", {})}
    result = try_template(sets=[f"models={json.dumps({'m': {'weights': weights, **entry}})}"])
    assert result.returncode != 0, "it is not rejected"
    return result.stderr


def jobs(manifests: list[Manifest]) -> list[Manifest]:
    return [m for m in manifests if m["kind"] == "Job"]


def pod(workload: Manifest) -> Manifest:
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def mount(workload: Manifest, container: str) -> Manifest:
    """Return the mount of the weights in a container."""
    (found,) = (m for m in containers(workload)[container]["volumeMounts"] if m["name"] == "weights")
    return dict(found)


def test_the_default_claim_binds_with_any_storage_class_and_its_update_can_end() -> None:
    manifests = pool()
    claim = find(manifests, "PersistentVolumeClaim", "vilix-m-weights")["spec"]
    assert claim["accessModes"] == ["ReadWriteOnce"]
    assert "storageClassName" not in claim
    strategy = find(manifests, "Deployment", "vilix-m")["spec"]["strategy"]
    assert strategy == {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


@pytest.mark.parametrize("volume", [RWX, {"ephemeral": True}])
def test_updates_keep_the_capacity_where_several_pods_can_have_the_weights(volume: dict[str, Any]) -> None:
    manifests = pool(replicas=3, weights={"volume": volume})
    strategy = find(manifests, "Deployment", "vilix-m")["spec"]["strategy"]
    assert strategy == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"replicas": 2}, "models.m.replicas"),
        ({"autoscaling": {"kind": "keda"}}, "models.m.autoscaling.kind"),
        ({"autoscaling": {"kind": "hpa"}}, "models.m.autoscaling.kind"),
        ({"maxSurge": 1}, "models.m.maxSurge"),
        ({"maxSurge": "25%"}, "models.m.maxSurge"),
        ({"weights": {"volume": {"existingClaim": "ours"}}, "replicas": 2}, "models.m.replicas"),
        ({"weights": {"source": "volume", "volume": {"existingClaim": "ours"}}, "replicas": 2}, "models.m.replicas"),
        ({"weights": {"volume": {"accessModes": ["ReadWriteMany"]}}}, "models.m.weights.volume.storageClassName"),
        ({"weights": {"volume": {"accessModes": ["ReadOnlyMany"]}}}, "models.m.weights.volume.accessModes"),
        ({"weights": {"volume": {"accessModes": ["ReadWriteOncePod"]}}}, "accessModes"),
    ],
)
def test_volumes_on_which_pods_would_wait_for_ever_are_rejected(entry: dict[str, Any], named: str) -> None:
    assert named in rejection(**entry)


@pytest.mark.parametrize(
    "entry",
    [
        {"replicas": 2, "weights": {"volume": {"oneNode": True}}},
        {"replicas": 2, "weights": {"volume": {"ephemeral": True}}},
        {"replicas": 2, "weights": {"volume": {"existingClaim": "ours", "accessModes": ["ReadWriteMany"]}}},
        {"autoscaling": {"kind": "keda"}, "weights": {"volume": RWX}},
    ],
)
def test_the_alternatives_that_the_rejection_names_are_accepted(entry: dict[str, Any]) -> None:
    assert find(pool(**entry), "Deployment", "vilix-m")


def test_pods_of_a_claim_for_one_node_run_on_one_node() -> None:
    """Otherwise the download and the server could be on different nodes, and wait for each other's volume."""
    manifests = pool(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}})
    deployment, (job,) = find(manifests, "Deployment", "vilix-m"), jobs(manifests)
    terms = []
    for workload in (deployment, job):
        affinity = pod(workload)["affinity"]
        assert "nodeAffinity" in affinity
        (term,) = affinity["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert term["labelSelector"]["matchLabels"].items() <= labels.items(), "the first pod must match itself"
        assert term["topologyKey"] == "kubernetes.io/hostname"
        terms.append(term)
    assert terms[0] == terms[1]
    assert "affinity" not in pod(find(pool(weights={"volume": RWX}), "Deployment", "vilix-m"))


def test_a_job_without_gpus_downloads_and_pods_with_gpus_cannot_reach_the_internet() -> None:
    manifests = pool()
    (job,) = jobs(manifests)
    assert "nvidia.com/gpu" not in json.dumps(containers(job)["download"]["resources"])
    deployment = find(manifests, "Deployment", "vilix-m")
    assert [c["name"] for c in pod(deployment)["initContainers"]] == ["weights", "render", "triton"]
    assert find(manifests, "NetworkPolicy", "vilix-m")["spec"]["egress"] == []
    policy = find(manifests, "NetworkPolicy", "vilix-weights")["spec"]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"] if port["port"] != 53] == [443]
    # The Job's pod belongs to no Service and no other policy.
    for other in (m for m in manifests if m["kind"] == "Service"):
        assert not other["spec"]["selector"].items() <= labels.items()


def test_each_pod_with_a_volume_of_its_own_downloads_for_itself() -> None:
    manifests = pool(weights={"volume": {"ephemeral": True}})
    assert not jobs(manifests)
    deployment = find(manifests, "Deployment", "vilix-m")
    assert [c["name"] for c in pod(deployment)["initContainers"]] == ["download", "render", "triton"]
    assert find(manifests, "NetworkPolicy", "vilix-m")["spec"]["egress"]


def test_a_revision_has_a_directory_that_no_other_one_uses() -> None:
    def directories(revision: str) -> tuple[str, str]:
        manifests = pool(weights={"revision": revision})
        written = environment(containers(jobs(manifests)[0])["download"])["VILIX_DIRECTORY"]
        deployment = find(manifests, "Deployment", "vilix-m")
        awaited = environment(containers(deployment)["weights"])["VILIX_DIRECTORY"]
        mounts = [mount(deployment, name) for name in ("render", "triton", "worker")]
        assert written == awaited
        for one in mounts:
            assert (one["mountPath"], one["readOnly"]) == ("/weights/m", True)
            assert f"/weights/{one['subPath']}" == written
        return written, jobs(manifests)[0]["metadata"]["name"]

    (first, first_job), (second, second_job) = directories("main"), directories("refs/pr/7")
    assert first != second
    assert second == "/weights/m/us--model@refs--pr--7"
    assert first_job != second_job, "the template of a Job cannot be changed"


def test_the_next_revision_is_downloaded_while_the_present_one_serves() -> None:
    manifests = pool(weights={"nextRevision": "v2"})
    assert sorted(environment(containers(job)["download"])["VILIX_REVISION"] for job in jobs(manifests)) == [
        "main",
        "v2",
    ]
    assert mount(find(manifests, "Deployment", "vilix-m"), "worker")["subPath"].endswith("@main")
    assert len(jobs(pool(weights={"nextRevision": "main"}))) == 1
    # Pods may still read the revisions that a download ahead would remove.
    variables = [environment(containers(job)["download"]) for job in jobs(manifests)]
    keep = {each["VILIX_REVISION"]: each["VILIX_KEEP"] for each in variables}
    assert keep == {"main": "2", "v2": "0"}


def test_weights_can_be_downloaded_before_any_pod_holds_a_gpu() -> None:
    manifests = pool(serve=False, autoscaling={"kind": "keda"}, weights={"volume": RWX})
    assert jobs(manifests)
    assert find(manifests, "PersistentVolumeClaim", "vilix-m-weights")
    workloads = [m for m in manifests if m["kind"] in ("Deployment", "Job")]
    resources = [container.get("resources") for workload in workloads for container in containers(workload).values()]
    assert "nvidia.com/gpu" not in json.dumps(resources)
    assert not [m for m in manifests if m["kind"] == "ScaledObject"]
    # The gateways expect the model, so that they need not restart when it is served.
    gateway = environment(containers(find(manifests, "Deployment", "vilix-gateway"))["gateway"])
    assert gateway["VILIX_EXPECTED_MODELS"] == "m"


def test_argo_cd_starts_pods_with_gpus_after_the_download() -> None:
    manifests = pool()

    def wave(manifest: Manifest) -> int:
        return int(manifest["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))

    (job,) = jobs(manifests)
    assert wave(job) < wave(find(manifests, "Deployment", "vilix-m"))
    # A claim is often bound only when the Job's pod uses it: an earlier wave would wait for ever.
    assert wave(find(manifests, "PersistentVolumeClaim", "vilix-m-weights")) == wave(job)
    assert wave(find(manifests, "NetworkPolicy", "vilix-weights")) <= wave(job)
    assert wave(find(manifests, "ServiceAccount", "vilix")) <= wave(job)


def test_downloads_use_proxies_and_private_authorities() -> None:
    settings = {
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "caConfigMap": {"name": "company", "key": "bundle.pem"},
    }
    for volume in (RWX, {"ephemeral": True}):
        manifests = pool(weights={**settings, "volume": volume})
        workload = find(manifests, "Deployment", "vilix-m") if "ephemeral" in volume else jobs(manifests)[0]
        download = containers(workload)["download"]
        assert environment(download)["HTTPS_PROXY"] == "http://proxy:3128"
        (authorities,) = (m["mountPath"] for m in download["volumeMounts"] if m["name"] == "ca")
        assert environment(download)["SSL_CERT_FILE"] == f"{authorities}/ca.crt"
        (volume_of_it,) = (v for v in pod(workload)["volumes"] if v["name"] == "ca")
        assert volume_of_it["configMap"] == {"name": "company", "items": [{"key": "bundle.pem", "path": "ca.crt"}]}


def test_a_job_runs_where_its_pool_runs_unless_told_otherwise() -> None:
    entry: dict[str, Any] = {"nodeSelector": {"zone": "a"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    (job,) = jobs(pool(**entry, podLabels={"kueue.x-k8s.io/queue-name": "gpus"}))
    assert "kueue.x-k8s.io/queue-name" not in job["spec"]["template"]["metadata"]["labels"], "it needs no GPU"
    assert (pod(job)["nodeSelector"], pod(job)["tolerations"]) == (entry["nodeSelector"], entry["tolerations"])
    own = {"nodeSelector": {"kind": "cpu"}, "tolerations": [{"key": "cpu"}], "serviceAccountName": "puller"}
    (job,) = jobs(pool(**entry, weights={"job": own}))
    assert (pod(job)["nodeSelector"], pod(job)["tolerations"]) == (own["nodeSelector"], own["tolerations"])
    assert pod(job)["serviceAccountName"] == "puller"


@pytest.mark.parametrize(
    ("weights", "volume"),
    [
        (
            {"source": "image", "image": "registry/w@sha256:0"},
            {"image": {"reference": "registry/w@sha256:0", "pullPolicy": "IfNotPresent"}},
        ),
        ({"source": "volume", "volume": {"existingClaim": "ours"}}, {"persistentVolumeClaim": {"claimName": "ours"}}),
    ],
)
def test_weights_in_images_and_volumes_are_not_downloaded(weights: dict[str, Any], volume: dict[str, Any]) -> None:
    manifests = pool(weights=weights)
    deployment = find(manifests, "Deployment", "vilix-m")
    assert "download" not in containers(deployment)
    assert {"name": "weights", **volume} in pod(deployment)["volumes"]
    assert not [m for m in manifests if m["kind"] in ("PersistentVolumeClaim", "Job")]
    assert find(manifests, "NetworkPolicy", "vilix-m")["spec"]["egress"] == []
    for name in ("render", "triton", "worker"):
        one = mount(deployment, name)
        assert (one["mountPath"], one["readOnly"]) == ("/weights/m", True)


def test_the_directory_of_an_existing_volume_is_checked_before_it_is_mounted() -> None:
    weights = {"source": "volume", "path": "some/where", "volume": {"existingClaim": "ours"}}
    deployment = find(pool(weights=weights), "Deployment", "vilix-m")
    assert pod(deployment)["initContainers"][0]["name"] == "weights"
    assert environment(containers(deployment)["weights"])["VILIX_DIRECTORY"] == "/weights/some/where"
    assert "subPath" not in mount(deployment, "weights")
    assert mount(deployment, "worker")["subPath"] == "some/where"


@pytest.mark.parametrize(
    ("image", "version", "message"),
    [
        ("registry/w:latest", "1.34", "models.m.weights.image"),
        ("registry/w@sha256:0", "1.32", "Kubernetes 1.33"),
    ],
)
def test_images_with_weights_need_a_digest_and_a_recent_kubernetes(image: str, version: str, message: str) -> None:
    models = {"m": {"weights": {"source": "image", "image": image}}}
    result = try_template(sets=[f"models={json.dumps(models)}"], version=version)
    assert result.returncode != 0
    assert message in result.stderr


def test_volumes_of_weights_outlive_the_release(production: list[Manifest]) -> None:
    claims = [m for m in production if m["kind"] == "PersistentVolumeClaim"]
    pools = [m for m in production if m["kind"] == "Deployment" and "triton" in containers(m)]
    assert len(claims) == len(pools)
    assert all(claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for claim in claims)
