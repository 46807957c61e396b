"""What is in front of the gateways: HTTPRoutes and Ingresses, with limits that fit streams and uploads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.helm import Manifest, containers, environment, find, template

ROUTE = ["httpRoute.enabled=true", 'httpRoute.parentRefs=[{"name": "public"}]']
INGRESS = ["ingress.enabled=true", "ingress.host=ai.example.com"]


def seconds(manifests: list[Manifest]) -> int:
    (rule,) = find(manifests, "HTTPRoute", "vilix-gateway")["spec"]["rules"]
    return int(rule["timeouts"]["request"].removesuffix("s"))


def annotations(*sets: str) -> dict[str, Any]:
    ingress = find(template(sets=[*INGRESS, *sets]), "Ingress", "vilix-gateway")
    return dict(ingress["metadata"].get("annotations", {}))


def test_a_route_allows_the_longest_response_after_the_longest_queue() -> None:
    assert seconds(template(sets=ROUTE)) >= 900 + 60, "uploads and images by URL come before the response"
    tiers = {"free": {"queue": True, "queue_seconds": 300}, "paid": {"queue": True}, "other": {"queue_seconds": 600}}
    queued = template(sets=[*ROUTE, f"gateway.tiers={json.dumps(tiers)}"])
    assert seconds(queued) == seconds(template(sets=ROUTE)) + 300, "a tier without a queue does not count"
    assert seconds(template(sets=[*ROUTE, "httpRoute.timeoutSeconds=77"])) == 77


def test_filters_and_annotations_reach_the_route() -> None:
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-internal"]}}]
    manifests = template(
        sets=[*ROUTE, f"httpRoute.filters={json.dumps(filters)}", 'httpRoute.annotations={"a.b/c": "d"}']
    )
    route = find(manifests, "HTTPRoute", "vilix-gateway")
    assert route["spec"]["rules"][0]["filters"] == filters
    assert route["metadata"]["annotations"] == {"a.b/c": "d"}


def test_the_production_values_use_a_route(production: list[Manifest]) -> None:
    assert find(production, "HTTPRoute", "vilix-gateway")
    assert not [m for m in production if m["kind"] == "Ingress"]


@pytest.mark.parametrize(
    ("controller", "prefix", "body_size", "timeout", "buffering"),
    [
        ("nginx", "nginx.ingress.kubernetes.io", "proxy-body-size", ("proxy-read-timeout", "900"), "off"),
        ("f5-nginx", "nginx.org", "client-max-body-size", ("proxy-read-timeout", "900s"), "False"),
    ],
)
def test_nginx_is_configured_for_streams_and_uploads(
    controller: str, prefix: str, body_size: str, timeout: tuple[str, str], buffering: str
) -> None:
    found = annotations(f"ingress.controller={controller}")
    gateway = containers(find(template(), "Deployment", "vilix-gateway"))["gateway"]
    assert found[f"{prefix}/{body_size}"] == environment(gateway)["VILIX_MAX_BODY_BYTES"]
    assert found[f"{prefix}/{timeout[0]}"] == timeout[1]
    assert found[f"{prefix}/proxy-buffering"] == buffering
    assert all(name.startswith(prefix) for name in found), "another controller ignores them without a word"


@pytest.mark.parametrize(
    ("controller", "annotation", "value"),
    [
        ("haproxy", "haproxy.org/timeout-server", "900s"),
        ("alb", "alb.ingress.kubernetes.io/load-balancer-attributes", "idle_timeout.timeout_seconds=900"),
    ],
)
def test_other_controllers_do_not_cut_streams(controller: str, annotation: str, value: str) -> None:
    assert annotations(f"ingress.controller={controller}")[annotation] == value


def test_annotations_are_those_of_the_controller_and_not_of_the_class() -> None:
    assert annotations("ingress.className=nginx-internal") == {}
    own = 'ingress.annotations={"nginx.ingress.kubernetes.io/proxy-read-timeout": "5"}'
    assert annotations("ingress.controller=nginx", own)["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "5"
    ingress = find(template(sets=INGRESS), "Ingress", "vilix-gateway")
    assert "ingressClassName" not in ingress["spec"], "the cluster's default class"
