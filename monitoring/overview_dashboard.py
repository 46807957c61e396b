"""The dashboard to look at first."""

from __future__ import annotations

from monitoring.panels import Dashboard, Panel, Query, Row
from monitoring.queries import NAMESPACE, NAMESPACES, SHARE, YES, quantiles, rate


def overview() -> Dashboard:
    """Return the dashboard to look at first."""
    return Dashboard(
        "overview",
        "Vilix / Overview",
        [
            Row(
                "State",
                [
                    Panel(
                        "Models available",
                        [Query(f"max by (model) (vilix_model_available{{{NAMESPACE}}})", "{{model}}")],
                        kind="stat",
                        mappings=YES,
                        description="Models that some worker serves, as the gateways see it.",
                        height=6,
                    ),
                    Panel(
                        "Workers of each model",
                        [Query(f"max by (model) (vilix_model_workers{{{NAMESPACE}}})", "{{model}}")],
                        kind="stat",
                        height=6,
                    ),
                    Panel(
                        "Redis replies",
                        [Query(f"min by (store) (vilix_redis_up{{{NAMESPACE}}})", "{{store}}")],
                        kind="stat",
                        mappings=YES,
                        width=4,
                        height=6,
                    ),
                    Panel(
                        "Versions",
                        [
                            Query(
                                f"count by (component, version) (vilix_build_info{{{NAMESPACE}}})",
                                "{{component}} {{version}}",
                            )
                        ],
                        kind="stat",
                        width=4,
                        height=6,
                    ),
                ],
            ),
            Row(
                "Service levels",
                [
                    Panel(
                        "Failed requests",
                        [Query(f"vilix:request_errors:ratio_rate5m{{{NAMESPACE}}}", "{{model}}")],
                        SHARE,
                        description="Share of requests that Vilix could not serve: of those that it did not reject.",
                    ),
                    Panel(
                        "Slow first tokens",
                        [Query(f"vilix:slow_first_tokens:ratio_rate5m{{{NAMESPACE}}}", "{{model}}")],
                        SHARE,
                        description="Share of first tokens that came later than the service level promises.",
                    ),
                    Panel(
                        "Outcomes of requests",
                        [Query(rate("vilix_request_outcomes_total", "outcome"), "{{outcome}}")],
                        "reqps",
                    ),
                ],
            ),
            Row(
                "Traffic",
                [
                    Panel(
                        "Requests by status",
                        [Query(rate("vilix_http_requests_total", "status"), "{{status}}")],
                        "reqps",
                    ),
                    Panel(
                        "Tokens",
                        [Query(f"sum by (model, kind) (vilix:tokens:rate5m{{{NAMESPACE}}})", "{{model}} {{kind}}")],
                    ),
                    Panel(
                        "First token",
                        quantiles("vilix_first_token_seconds", NAMESPACE),
                        "s",
                        description="From the arrival of the request.",
                    ),
                ],
            ),
            Row(
                "Capacity",
                [
                    Panel(
                        "Load of the engines",
                        [Query(f"vilix:engine_load:ratio{{{NAMESPACE}}}", "{{model}}")],
                        SHARE,
                        description="Requests that run or wait, divided by the slots of all engines of the model.",
                    ),
                    Panel(
                        "Waiting for a slot",
                        [Query(f"sum by (model) (vilix_engine_queued{{{NAMESPACE}}})", "{{model}}")],
                    ),
                    Panel(
                        "Engines that failed",
                        [
                            Query(
                                f"sum by (model, cause) (increase(vilix_engine_failures_total{{{NAMESPACE}}}[1h]))",
                                "{{model}} {{cause}}",
                            )
                        ],
                        description="Within the last hour.",
                    ),
                ],
            ),
        ],
        [NAMESPACES],
    )
