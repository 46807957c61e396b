"""The dashboard of the gateways and of Redis."""

from __future__ import annotations

from monitoring.panels import Dashboard, Panel, Query, Row
from monitoring.queries import NAMESPACE, NAMESPACES, RATE, SHARE, YES, latency, rate


def gateway() -> Dashboard:
    """Return the dashboard of the gateways and of Redis."""
    instance, gateways = "instance", f'{NAMESPACE}, component="gateway"'
    expiry = f"vilix_certificate_expiry_timestamp_seconds{{{NAMESPACE}}}"
    of_gateways = f"* on (namespace, instance) group_left () vilix_build_info{{{gateways}}}"
    return Dashboard(
        "gateway",
        "Vilix / Gateway and Redis",
        [
            Row(
                "HTTP",
                [
                    Panel(
                        "Requests in flight",
                        [Query(f"sum by (instance) (vilix_http_requests_in_flight{{{NAMESPACE}}})", "{{instance}}")],
                    ),
                    Panel(
                        "Connections",
                        [Query(f"sum by (instance) (vilix_http_connections{{{NAMESPACE}}})", "{{instance}}")],
                    ),
                    Panel(
                        "Closed connections",
                        [Query(rate("vilix_http_connections_rejected_total", "cause"), "{{cause}}")],
                        "cps",
                    ),
                    Panel(
                        "Duration by route",
                        [
                            Query(
                                "histogram_quantile(0.95, "
                                + rate("vilix_http_request_duration_seconds_bucket", "le, route")
                                + ")",
                                "p95 {{route}}",
                            )
                        ],
                        "s",
                    ),
                    Panel(
                        "Memory of request bodies",
                        [Query(f"sum by (instance) (vilix_http_body_bytes{{{NAMESPACE}}})", "{{instance}}")],
                        "bytes",
                    ),
                    Panel(
                        "Stored responses",
                        [Query(f"max (vilix_stored_response_bytes{{{NAMESPACE}}})", "all keys")],
                        "bytes",
                    ),
                ],
            ),
            Row(
                "Processes",
                [
                    Panel(
                        "Cores in use",
                        [
                            Query(
                                f"sum by (instance) (rate(process_cpu_seconds_total{{{NAMESPACE}}}{RATE})"
                                f" {of_gateways})",
                                "{{instance}}",
                            )
                        ],
                        description="A gateway is one process on one core.",
                    ),
                    Panel(
                        "Resident memory",
                        [
                            Query(
                                f"sum by (instance) (process_resident_memory_bytes{{{NAMESPACE}}} {of_gateways})",
                                "{{instance}}",
                            )
                        ],
                        "bytes",
                    ),
                    latency(
                        "Event loop blocked",
                        "vilix_event_loop_blocked_seconds",
                        "How late the event loops of gateways and workers were because of their own work.",
                        NAMESPACE,
                    ),
                    Panel(
                        "Workers that each gateway has found",
                        [
                            Query(
                                f"sum by (instance, grpc_service) (vilix_workers_serving{{{NAMESPACE}}})",
                                "{{instance}} {{grpc_service}}",
                            )
                        ],
                    ),
                    Panel(
                        "Days until certificates expire",
                        [Query(f"(min by (file) ({expiry}) - time()) / 86400", "{{file}}")],
                        description="Only with mTLS.",
                    ),
                    Panel(
                        "Certificates that cannot be read",
                        # NaN, which min leaves out, is the only value that differs from itself.
                        [Query(f"sum by (file) ({expiry} != bool {expiry})", "{{file}}")],
                        kind="stat",
                        description="The number of processes that cannot. Only with mTLS.",
                    ),
                ],
            ),
            Row(
                "Redis",
                [
                    Panel(
                        "Redis replies",
                        [Query(f"min by (instance, store) (vilix_redis_up{{{NAMESPACE}}})", "{{instance}} {{store}}")],
                        kind="stat",
                        mappings=YES,
                    ),
                    Panel(
                        "Redis rejects writes, evicts keys, persists",
                        [
                            Query(f"max (vilix_redis_rejects_writes{{{NAMESPACE}}})", "rejects writes"),
                            Query(f"max (vilix_redis_evicts_keys{{{NAMESPACE}}})", "evicts keys"),
                            Query(f"min (vilix_redis_persists{{{NAMESPACE}}})", "persists"),
                        ],
                        kind="stat",
                    ),
                    Panel(
                        "Memory of Redis",
                        [Query(f"max (vilix_redis_used_memory_ratio{{{NAMESPACE}}})", "of maxmemory")],
                        SHARE,
                    ),
                    latency(
                        "Commands of Redis",
                        "vilix_redis_command_duration_seconds",
                        "As the gateways wait for them.",
                        NAMESPACE,
                    ),
                    Panel(
                        "Commands by result",
                        [Query(rate("vilix_redis_command_duration_seconds_count", "result"), "{{result}}")],
                        "ops",
                    ),
                    Panel(
                        "Decisions without Redis",
                        [Query(rate("vilix_redis_away_decisions_total", "decision"), "{{decision}}")],
                        "ops",
                    ),
                    Panel(
                        "Rejected writes",
                        [Query(rate("vilix_redis_rejected_writes_total", "cause"), "{{cause}}")],
                        "ops",
                    ),
                    Panel(
                        "Gateways that share it",
                        [Query(f"max by ({instance}) (vilix_gateways{{{NAMESPACE}}})", "{{instance}}")],
                    ),
                ],
            ),
        ],
        [NAMESPACES],
    )
