"""The connections that the NetworkPolicies allow."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.support.helm import Manifest, containers, find, template

POOLS = ("vilix-qwen3-8b", "vilix-minimax", "vilix-qwen3-embedding-0-6b")


def _pod(manifests: list[Manifest], name: str) -> tuple[Mapping[str, str], dict[str, int]]:
    """Return the labels and named ports of a workload's pods."""
    (workload,) = (m for m in manifests if m["kind"] in ("Deployment", "StatefulSet") and m["metadata"]["name"] == name)
    ports = {p["name"]: p["containerPort"] for c in containers(workload).values() for p in c.get("ports", ())}
    return workload["spec"]["template"]["metadata"]["labels"], ports


def _allowed(manifests: list[Manifest], target: str, port: int, *, source: str = "", namespace: str = "ai") -> bool:
    """Whether the ingress policies of `target` allow pods of the workload `source`, or any pod of another namespace."""
    labels, ports = _pod(manifests, target)
    source_labels = _pod(manifests, source)[0] if source else {}
    policies = [
        m
        for m in manifests
        if m["kind"] == "NetworkPolicy" and m["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    ]
    assert policies, f"no policy protects {target}"
    return any(
        _matches(rule, ports, port, source_labels, namespace)
        for policy in policies
        for rule in policy["spec"]["ingress"]
    )


def _matches(rule: Manifest, ports: dict[str, int], port: int, labels: Mapping[str, str], namespace: str) -> bool:
    if "ports" in rule and port not in [ports.get(p["port"], p["port"]) for p in rule["ports"]]:
        return False
    if "from" not in rule:
        return True
    for peer in rule["from"]:
        selected = peer.get("podSelector", {}).get("matchLabels", {})
        peer_namespace = (
            peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name", "ai")
        )
        if peer_namespace == namespace and (not selected or (labels and selected.items() <= labels.items())):
            return True
    return False


@pytest.mark.parametrize("pool", POOLS)
def test_only_gateways_can_reach_workers(production: list[Manifest], pool: str) -> None:
    port = 9002 if "embedding" in pool else 9001
    assert _allowed(production, pool, port, source="vilix-gateway")
    other = next(name for name in POOLS if name != pool)
    assert not _allowed(production, pool, port, source=other)
    assert not _allowed(production, pool, port, namespace="default")
    assert not _allowed(production, pool, port, namespace="monitoring")


def test_internal_namespaces_can_reach_only_workers() -> None:
    manifests = template("values/qwen3-8b", sets=["networkPolicy.internalNamespaces[0]=search"])
    assert _allowed(manifests, "vilix-qwen3-8b", 9001, namespace="search")
    assert not _allowed(manifests, "vilix-qwen3-8b", 9001, namespace="default")
    assert not _allowed(manifests, "vilix-qwen3-8b", 9090, namespace="search")
    assert not _allowed(manifests, "vilix-valkey", 6379, namespace="search")


@pytest.mark.parametrize("pool", POOLS)
def test_only_its_own_worker_can_reach_triton(production: list[Manifest], pool: str) -> None:
    triton = containers(find(production, "Deployment", pool))["triton"]
    assert "--http-address=127.0.0.1" in triton["args"]
    assert "--grpc-address=127.0.0.1" in triton["args"]
    assert "--model-control-mode=none" in triton["args"]
    for port in (8000, 8001):
        assert not _allowed(production, pool, port, source="vilix-gateway")
        assert not _allowed(production, pool, port, namespace="monitoring")


@pytest.mark.parametrize("target", ["vilix-gateway", *POOLS])
def test_only_the_monitoring_namespace_can_reach_metrics(production: list[Manifest], target: str) -> None:
    assert _allowed(production, target, 9090, namespace="monitoring")
    assert not _allowed(production, target, 9090, namespace="ingress-nginx")
    assert not _allowed(production, target, 9090, namespace="default")


def test_the_public_service_does_not_expose_metrics(production: list[Manifest]) -> None:
    assert [port["targetPort"] for port in find(production, "Service", "vilix-gateway")["spec"]["ports"]] == ["http"]


def test_only_the_proxy_can_reach_the_public_port_if_one_is_configured(
    production: list[Manifest], demo: list[Manifest]
) -> None:
    assert _allowed(production, "vilix-gateway", 8000, namespace="gateways")
    assert not _allowed(production, "vilix-gateway", 8000, namespace="default")
    assert _allowed(demo, "vilix-gateway", 8000, namespace="default")


def test_only_configured_namespaces_can_reach_the_admin_api() -> None:
    admin = ["gateway.admin.enabled=true", 'gateway.admin.tokenSecret={"name": "a", "key": "b"}']
    for namespaces, allowed in (([], False), (["gateway.admin.namespaces[0]=console"], True)):
        manifests = template(sets=[*admin, *namespaces])
        assert _allowed(manifests, "vilix-gateway", 8081, namespace="console") is allowed
        assert not _allowed(manifests, "vilix-gateway", 8081, namespace="default")
        assert [p["name"] for p in find(manifests, "Service", "vilix-gateway")["spec"]["ports"]] == ["http"]
        assert find(manifests, "Service", "vilix-gateway-admin")["spec"]["ports"][0]["targetPort"] == "admin"


def test_only_gateways_can_reach_valkey(demo: list[Manifest]) -> None:
    assert _allowed(demo, "vilix-valkey", 6379, source="vilix-gateway")
    assert not _allowed(demo, "vilix-valkey", 6379, source="vilix-smollm2-135m")
    assert not _allowed(demo, "vilix-valkey", 6379, namespace="default")


def test_pods_cannot_open_connections_that_they_do_not_need(production: list[Manifest], demo: list[Manifest]) -> None:
    for name in ("vilix-smollm2-135m", "vilix-multilingual-e5-small", "vilix-valkey"):
        assert find(demo, "NetworkPolicy", name)["spec"]["egress"] == []
    # A client's image URL must not make a gateway connect to an address inside the cluster.
    for rule in find(production, "NetworkPolicy", "vilix-gateway")["spec"]["egress"]:
        assert "to" in rule or {p["port"] for p in rule["ports"]} == {53}
