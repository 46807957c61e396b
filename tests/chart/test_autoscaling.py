"""Autoscaling of pools: its signal is known to the services, and stable at a steady load."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from vilix.inference.v1 import inference_service_pb2 as pb

from services.deployment import deletion_cost
from services.embeddings import metrics as embeddings_metrics
from services.inference import metrics as inference_metrics
from tests.support.autoscaler import Autoscaler, Outcome, Pod, simulate
from tests.support.helm import Manifest, environment, find, program, template
from tests.support.repository import ROOT

HOUR = 3600
SLOTS = 64
SETTLED = 1200
"""Seconds after which the number of pods must be stable at a steady load."""
SHARED = {"accessModes": ["ReadWriteMany"], "storageClassName": "files"}
COUNTED_AT_MOST = 2.0
"""The load of one pod that the query counts at most, in pods."""
QUEUED, LOAD = "queued", "load"
METRICS = {"vilix_engine_load_ratio": inference_metrics, "vilix_embeddings_load_ratio": embeddings_metrics}


def pool(model: str = "m", *, engine: str = "trtllm", model_kind: str = "chat", **autoscaling: Any) -> list[Manifest]:
    """Return the manifests with one model whose pods are scaled."""
    weights = {"repo": "us/model", "volume": SHARED}
    entry = {"kind": model_kind, "engine": engine, "weights": weights, "autoscaling": autoscaling}
    return template(sets=[f"models={json.dumps({model: entry})}"])


def trigger(manifests: list[Manifest], name: str = "vilix-m") -> Manifest:
    """Return the trigger for Prometheus of a pool."""
    return dict(find(manifests, "ScaledObject", name)["spec"]["triggers"][0])


def parsed(query: str) -> dict[str, Any]:
    """Parse a query. It is an error if Prometheus could not."""
    command = [program("python"), ROOT / "tests" / "support" / "chart_tools" / "promql.py", query]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize(
    ("kind", "model", "metric"),
    [("chat", "a", "vilix_engine_load_ratio"), ("embeddings", "b.c", "vilix_embeddings_load_ratio")],
)
def test_the_query_is_valid_and_its_metric_exists(kind: str, model: str, metric: str) -> None:
    name = f"vilix-{model.replace('.', '-')}"
    query = parsed(trigger(pool(model, model_kind=kind, kind="keda"), name)["metadata"]["query"])
    assert (query["sum_of"], query["most"], query["metric"]) == ("clamp_max", COUNTED_AT_MOST, metric)
    assert metric in {collected.name for collected in REGISTRY.collect()}, METRICS[metric]
    labels = {name: value for name, _, value in query["matchers"]}
    assert (labels["namespace"], labels["model"]) == ("ai", model)
    # Pods of another release, or of a model whose name begins like this one's, do not count.
    assert re.fullmatch(labels["pod"], f"{name}-6d4cf56db6-x2x9z")
    assert not re.fullmatch(labels["pod"], f"{name}-large-6d4cf56db6-x2x9z")
    (source,) = find(pool(model, model_kind=kind, kind="hpa"), "HorizontalPodAutoscaler", name)["spec"]["metrics"]
    assert source["pods"]["metric"] == {"name": metric, "selector": {"matchLabels": {"model": model}}}
    assert source["pods"]["target"] == {"type": "AverageValue", "averageValue": "700m"}


def test_an_invalid_query_is_seen() -> None:
    with pytest.raises(AssertionError):
        parsed("sum(vilix{namespace=)")


def test_no_data_is_never_a_load_of_zero() -> None:
    manifests = pool(kind="keda", minReplicas=2)
    assert trigger(manifests)["metadata"]["ignoreNullValues"] == "false"
    fallback = find(manifests, "ScaledObject", "vilix-m")["spec"]["fallback"]
    assert fallback == {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}


def test_operators_can_pause_authenticate_and_add_triggers() -> None:
    cron = {"type": "cron", "metadata": {"timezone": "Asia/Tehran", "start": "0 8 * * *", "desiredReplicas": "3"}}
    manifests = pool(
        kind="keda",
        annotations={"autoscaling.keda.sh/paused": "true"},
        authenticationRef={"name": "thanos", "kind": "ClusterTriggerAuthentication"},
        triggers=[cron],
        pollingSeconds=30,
    )
    scaled = find(manifests, "ScaledObject", "vilix-m")
    assert scaled["metadata"]["annotations"] == {"autoscaling.keda.sh/paused": "true"}
    assert scaled["spec"]["pollingInterval"] == 30
    first, second = scaled["spec"]["triggers"]
    assert first["authenticationRef"] == {"name": "thanos", "kind": "ClusterTriggerAuthentication"}
    assert second == cron


def autoscaler(signal: str = LOAD) -> Autoscaler:
    """Return an autoscaler with the values that the chart renders."""
    manifests = pool(kind="keda", maxReplicas=12)
    spec = find(manifests, "ScaledObject", "vilix-m")["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    target = float(trigger(manifests)["metadata"]["threshold"]) if signal == LOAD else 4.0
    return Autoscaler(behavior, target, spec["minReplicaCount"], spec["maxReplicaCount"])


def load_ratio(pods: list[Pod]) -> float | None:
    """Return the sum that Prometheus would: of the metric that a worker sets for each pod."""
    if not pods:
        return None
    total = 0.0
    for pod in pods:
        state = pb.ModelStatus(model="m", in_flight=len(pod.running), queued=len(pod.waiting), slots=pod.slots)
        inference_metrics.note_engines([state])
        total += min(inference_metrics.ENGINE_LOAD_RATIO.labels("m")._value.get(), COUNTED_AT_MOST)
    return total


def without_draining(pods: list[Pod]) -> float | None:
    """Return the sum without pods that drain, which a ServiceMonitor does not reach."""
    return load_ratio([pod for pod in pods if pod.draining_since is None])


def queued(pods: list[Pod]) -> float | None:
    return float(sum(len(pod.waiting) for pod in pods)) if pods else None


def steady(level: float) -> Callable[[int], float]:
    return lambda now: level


def assert_served(outcome: Outcome) -> None:
    """Every request that began has ended, or runs, and no pod was killed while it drained."""
    assert outcome.ended == outcome.begun
    assert outcome.longest_drain <= 900


@pytest.mark.parametrize("metric", [load_ratio, without_draining])
@pytest.mark.parametrize("level", [30, 90, 200, 224, 400])
def test_at_a_steady_load_the_number_of_pods_does_not_oscillate(
    level: float, metric: Callable[[list[Pod]], float | None]
) -> None:
    outcome = simulate(autoscaler(), metric, steady(level), seconds=SETTLED + HOUR, slots=SLOTS)
    assert outcome.reversals(SETTLED, SETTLED + HOUR) == 0
    assert max(outcome.waiting[SETTLED:]) == 0, "there is capacity for everybody"
    assert outcome.replicas[-1] <= math.ceil(level / SLOTS / 0.7) + 1, "no GPU is wasted"
    assert_served(outcome)


def test_the_simulation_sees_the_oscillation_of_a_signal_that_counts_only_waiting_requests() -> None:
    outcome = simulate(autoscaler(QUEUED), queued, steady(200), seconds=2 * HOUR, slots=SLOTS)
    assert outcome.reversals(SETTLED, 2 * HOUR) > 1
    assert max(outcome.waiting[SETTLED:]) > 0


@pytest.mark.parametrize("metric", [load_ratio, without_draining])
def test_a_step_is_followed_once_in_each_direction(metric: Callable[[list[Pod]], float | None]) -> None:
    def load(now: int) -> float:
        return 300 if HOUR <= now < 2 * HOUR else 80

    outcome = simulate(autoscaler(), metric, load, seconds=3 * HOUR, slots=SLOTS)
    assert outcome.reversals(SETTLED, 3 * HOUR) == 1
    assert max(outcome.waiting[HOUR + SETTLED : 2 * HOUR]) == 0
    assert outcome.replicas[-1] < outcome.replicas[2 * HOUR - 1]
    assert_served(outcome)


def test_bursts_do_not_add_and_remove_pods_each_time() -> None:
    def load(now: int) -> float:
        return 260 if now % 300 < 60 else 100

    outcome = simulate(autoscaler(), load_ratio, load, seconds=SETTLED + HOUR, slots=SLOTS)
    assert outcome.reversals(SETTLED, SETTLED + HOUR) <= 1
    assert_served(outcome)


def test_a_backlog_does_not_start_many_pods_while_the_first_ones_load() -> None:
    outcome = simulate(autoscaler(), load_ratio, lambda now: 25 if now < 600 else 170, seconds=HOUR, loading=900)
    assert max(outcome.waiting[600:1500]) > 1000, "there is a backlog"
    assert max(outcome.replicas[600:1500]) == math.ceil(COUNTED_AT_MOST / 0.7)


def test_pods_with_fewer_requests_go_first_where_pools_are_scaled() -> None:
    manifests = pool("m", kind="keda")
    deployment = find(manifests, "Deployment", "vilix-deletion-cost")
    pod = deployment["spec"]["template"]["spec"]
    variables = environment(pod["containers"][0])
    assert variables["VILIX_POD_SELECTOR"].endswith("app.kubernetes.io/component in (model-m)")
    assert pod["containers"][0]["command"][-1] == deletion_cost.__name__
    # It may do nothing but list pods and patch them.
    assert find(manifests, "Role", "vilix-deletion-cost")["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]}
    ]
    # No other pod that stays has access to the Kubernetes API.
    templates = [each["spec"]["template"]["spec"] for each in manifests if "template" in each.get("spec", {})]
    assert [each["serviceAccountName"] for each in templates if each["automountServiceAccountToken"]] == [
        "vilix-deletion-cost"
    ]


def test_nothing_watches_pods_that_are_not_scaled() -> None:
    entry = {"m": {"weights": {"repo": "us/model", "volume": SHARED}, "autoscaling": {"kind": "keda"}}}
    for manifests in (
        template(sets=['models={"m": {"weights": {"repo": "us/model"}}}']),
        template(sets=[f"models={json.dumps(entry)}", "deletionCost.enabled=false"]),
    ):
        assert [each["kind"] for each in manifests if "deletion-cost" in each["metadata"]["name"]] == []


def test_the_watcher_reaches_metrics_and_the_kubernetes_api_only() -> None:
    manifests = pool("m", kind="keda")
    policy = find(manifests, "NetworkPolicy", "vilix-deletion-cost")["spec"]
    assert policy["ingress"] == []
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]
    assert ports == [[9090], [443, 6443, 16443]]
    sources = [rule["from"] for rule in find(manifests, "NetworkPolicy", "vilix-m")["spec"]["ingress"]]
    labels = [peer["podSelector"]["matchLabels"] for source in sources for peer in source if "podSelector" in peer]
    assert "deletion-cost" in [each["app.kubernetes.io/component"] for each in labels]
