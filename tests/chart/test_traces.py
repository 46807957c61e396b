"""Traces: the environment of gateways and workers, and what their network policies allow."""

from __future__ import annotations

import json
from typing import Any

from tests.support.helm import Manifest, containers, find, template, try_template

MODEL = f"models={json.dumps({'m': {'weights': {'repo': 'us/model'}}})}"
EGRESS = [{"to": [{"namespaceSelector": {"matchLabels": {"team": "observability"}}}], "ports": [{"port": 4317}]}]
ON = [MODEL, "traces.endpoint=http://collector.observability:4317", f"traces.egress={json.dumps(EGRESS)}"]


def environment(manifests: list[Manifest], workload: str, container: str) -> dict[str, Any]:
    """Return the environment variables of a container."""
    listed = containers(find(manifests, "Deployment", workload))[container]["env"]
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in listed}


def test_traces_are_off_by_default() -> None:
    manifests = template(sets=[MODEL])
    for workload, container in (("vilix-gateway", "gateway"), ("vilix-m", "worker")):
        names = environment(manifests, workload, container)
        assert not [name for name in names if name.startswith(("OTEL_", "VILIX_TRACES_"))]


def test_an_endpoint_switches_traces_on_in_gateways_and_workers() -> None:
    secret = 'traces.headersSecret={"name": "otlp", "key": "headers"}'
    manifests = template(sets=[*ON, secret, "traces.ratio=0.25", "traces.slowSeconds=5"])
    expected = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.observability:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "VILIX_TRACES_SLOW_SECONDS": "5",
        "OTEL_EXPORTER_OTLP_HEADERS": {"secretKeyRef": {"name": "otlp", "key": "headers"}},
    }
    for workload, container in (("vilix-gateway", "gateway"), ("vilix-m", "worker")):
        actual = environment(manifests, workload, container)
        assert expected.items() <= actual.items()
        assert list(actual).index("POD_NAME") < list(actual).index("OTEL_RESOURCE_ATTRIBUTES")
    assert environment(manifests, "vilix-gateway", "gateway")["VILIX_TRACES_CONTENT"] == "false"


def test_pods_may_reach_the_collector() -> None:
    manifests = template(sets=ON)
    for policy in ("vilix-gateway", "vilix-m"):
        egress = find(manifests, "NetworkPolicy", policy)["spec"]["egress"]
        assert EGRESS[0] in egress
        # The name of the collector is looked up.
        assert [port["port"] for rule in egress for port in rule["ports"]].count(53) == 2


def test_an_endpoint_that_no_policy_allows_is_rejected() -> None:
    expected = "traces.egress: allow the pods to reach traces.endpoint"
    result = try_template(sets=ON[:2])
    assert result.returncode != 0
    assert expected in result.stderr
    assert template(sets=[*ON[:2], "networkPolicy.enabled=false"])
