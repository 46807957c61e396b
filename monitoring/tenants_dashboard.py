"""The dashboard of what keys meet. There are no series by key."""

from __future__ import annotations

from typing import Final

from monitoring.panels import COLUMNS, Dashboard, Panel, Query, Row
from monitoring.queries import NAMESPACE, NAMESPACES, latency, rate

NO_KEYS: Final = """\
Metrics have no keys: with one series for each key, their number would have no bound, and who may read metrics would see
who uses what. By key, there are:

- `vilix keys list` and `vilix keys usage NAME --by model`: requests and tokens by key, model and day;
- `vilix top`: what each key is doing now;
- `vilix request ID`: the receipt of one request of the last day, which customers read at `GET /api/requests/{id}`;
- the usage streams in Redis: one record for each request, for a data warehouse;
- the access log, by `key_id`.

`docs/keys.md` describes them. The panels show what all keys together meet: limits, queues and rejections.
"""


def tenants() -> Dashboard:
    """Return the dashboard of what keys meet. There are no series by key."""
    return Dashboard(
        "tenants",
        "Vilix / Tenants",
        [
            Row("By key", [Panel("Where usage by key is", kind="text", text=NO_KEYS, width=COLUMNS, height=7)]),
            Row(
                "Limits",
                [
                    Panel(
                        "Rejected by a limit",
                        [Query(rate("vilix_limits_rejected_total", "limit"), "{{limit}}")],
                        "reqps",
                        description="429: requests and tokens per minute, concurrency, budgets.",
                    ),
                    Panel(
                        "Waiting in the queue of their key",
                        [Query(f"sum (vilix_limits_waiting{{{NAMESPACE}}})", "waiting")],
                    ),
                    latency(
                        "Admission", "vilix_admission_duration_seconds", "Redis, and the queue of the key.", NAMESPACE
                    ),
                    Panel(
                        "Ended by a budget",
                        [
                            Query(
                                rate("vilix_request_outcomes_total", "model", f'{NAMESPACE}, outcome="budget"'),
                                "{{model}}",
                            )
                        ],
                        "reqps",
                        description="Generations that a budget of their key ended.",
                    ),
                    Panel(
                        "Rejected requests",
                        [
                            Query(
                                rate("vilix_http_requests_total", "status", f'{NAMESPACE}, status=~"4.."'), "{{status}}"
                            )
                        ],
                        "reqps",
                        description="401: unknown or revoked keys. 403: models that a key may not use. 429: limits.",
                    ),
                    Panel(
                        "Bodies without capacity",
                        [Query(rate("vilix_http_bodies_rejected_total", "cause"), "{{cause}}")],
                        "reqps",
                        description="`key`: one key holds half of the memory for bodies. `process`: all is in use.",
                    ),
                ],
            ),
            Row(
                "Usage of all keys",
                [
                    Panel(
                        "Tokens by model",
                        [Query(rate("vilix_tokens_total", "model, kind"), "{{model}} {{kind}}")],
                    ),
                    Panel(
                        "Clients that disconnected",
                        [
                            Query(
                                rate("vilix_request_outcomes_total", "model", f'{NAMESPACE}, outcome="client gone"'),
                                "{{model}}",
                            )
                        ],
                        "reqps",
                    ),
                    Panel(
                        "Usage that is not recorded yet",
                        [Query(f"sum (vilix_usage_unsettled_requests{{{NAMESPACE}}})", "requests")],
                    ),
                ],
            ),
        ],
        [NAMESPACES],
    )
