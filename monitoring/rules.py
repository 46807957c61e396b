"""Recording rules and alerts, which the chart installs as a PrometheusRule.

Words in `@…@` are replaced by the chart (templates/prometheusrule.yaml): by the namespace and name of the release, and
by its values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import yaml

NAMESPACE: Final = 'namespace="@NAMESPACE@"'
"""Selects the series of one installation. Prometheus adds the label to everything that it scrapes in a cluster."""
MODEL: Final = "namespace, model"
WINDOWS: Final = ("5m", "30m", "1h", "6h", "3d")
"""The windows of the burn rates: https://sre.google/workbook/alerting-on-slos/, table 5-8."""
LEAST_FAILURES: Final = 5
"""Fewer failures, within an hour or three days, are no alert: with few requests, one of them is a large part."""
_BAD: Final = 'outcome=~"failed|broken off|silent|drained|stopped"'
_OURS: Final = 'outcome!~"rejected|client gone"'
_EXPIRY: Final = f"vilix_certificate_expiry_timestamp_seconds{{{NAMESPACE}}}"
_HEADER: Final = "# Written by make monitoring from monitoring/rules.py.\n"


@dataclass(frozen=True)
class Record:
    """A recording rule."""

    name: str
    expression: str


@dataclass(frozen=True)
class Alert:
    """An alert. docs/operations.md has a section of its name, which says what it means and what to do."""

    name: str
    expression: str
    wait: str
    """For how long the expression must have a result before the alert fires."""
    severity: str
    """`critical`: wake somebody; `warning`: look at it in working hours."""
    summary: str
    """One sentence, with Prometheus's placeholders."""


def _outcomes(window: str, selector: str, function: str = "rate") -> str:
    return f"sum by ({MODEL}) ({function}(vilix_request_outcomes_total{{{NAMESPACE}, {selector}}}[{window}]))"


def _first_tokens(window: str, series: str, selector: str = "", function: str = "rate") -> str:
    return f"sum by ({MODEL}) ({function}(vilix_first_token_seconds_{series}{{{NAMESPACE}{selector}}}[{window}]))"


_IN_TIME: Final = ', le="@FIRST_TOKEN_SECONDS@"'


def records() -> list[Record]:
    """Return the recording rules."""
    rules = []
    for window in WINDOWS:
        failed, counted = (_outcomes(window, selector) for selector in (_BAD, _OURS))
        rules += [
            Record(
                f"vilix:request_errors:ratio_rate{window}",
                f"{failed} / {counted}",
            ),
            Record(
                f"vilix:slow_first_tokens:ratio_rate{window}",
                f"1 - {_first_tokens(window, 'bucket', _IN_TIME)} / {_first_tokens(window, 'count')}",
            ),
        ]
    for window in ("1h", "3d"):
        slow = f"{_first_tokens(window, 'count', function='increase')} - "
        slow += _first_tokens(window, "bucket", _IN_TIME, function="increase")
        rules += [
            Record(f"vilix:request_errors:increase{window}", _outcomes(window, _BAD, "increase")),
            Record(f"vilix:slow_first_tokens:increase{window}", slow),
        ]
    return [
        *rules,
        Record("vilix:tokens:rate5m", f"sum by ({MODEL}, kind) (rate(vilix_tokens_total{{{NAMESPACE}}}[5m]))"),
        Record(
            "vilix:engine_load:ratio",
            f"sum by ({MODEL}) (vilix_engine_in_flight{{{NAMESPACE}}} + vilix_engine_queued{{{NAMESPACE}}})"
            f" / sum by ({MODEL}) (vilix_engine_slots{{{NAMESPACE}}} > 0)",
        ),
    ]


def _burns_fast(series: str, budget: str) -> str:
    """Return the condition that a fiftieth of a month's budget is used in an hour, or a twentieth in six."""
    ratio = f"{series}:ratio_rate"
    return (
        f"(({ratio}1h{{{NAMESPACE}}} > 14.4 * {budget} and {ratio}5m{{{NAMESPACE}}} > 14.4 * {budget})"
        f" or ({ratio}6h{{{NAMESPACE}}} > 6 * {budget} and {ratio}30m{{{NAMESPACE}}} > 6 * {budget}))"
        f" and {series}:increase1h{{{NAMESPACE}}} >= {LEAST_FAILURES}"
    )


def _burns_slowly(series: str, budget: str) -> str:
    ratio = f"{series}:ratio_rate"
    return (
        f"{ratio}3d{{{NAMESPACE}}} > {budget} and {ratio}6h{{{NAMESPACE}}} > {budget}"
        f" and {series}:increase3d{{{NAMESPACE}}} >= {LEAST_FAILURES}"
    )


def _failures(causes: str) -> str:
    return (
        f'sum by ({MODEL}, instance) (increase(vilix_engine_failures_total{{{NAMESPACE}, cause=~"{causes}"}}[10m])) > 0'
    )


def alerts() -> list[Alert]:
    """Return the alerts, the most urgent ones first."""
    return [
        Alert(
            "VilixGatewayMissing",
            f'absent(vilix_build_info{{{NAMESPACE}, component="gateway"}})',
            "2m",
            "critical",
            "No gateway runs, or Prometheus reaches none.",
        ),
        Alert(
            "VilixModelUnavailable",
            f"max by ({MODEL}) (vilix_model_available{{{NAMESPACE}}}) == 0",
            "2m",
            "critical",
            "No worker serves the model {{ $labels.model }}: its requests get 503.",
        ),
        Alert(
            "VilixRedisAway",
            f'min by (namespace) (vilix_redis_up{{{NAMESPACE}, store="keys"}}) == 0',
            "1m",
            "critical",
            "Redis does not reply to a gateway: unknown keys get 503, and budgets are not checked.",
        ),
        Alert(
            "VilixRedisRejectsWrites",
            f"max by (namespace) (vilix_redis_rejects_writes{{{NAMESPACE}}}) == 1",
            "1m",
            "critical",
            "Redis rejects writes: budgets are not checked, and keys cannot be changed.",
        ),
        Alert(
            "VilixRequestsFail",
            _burns_fast("vilix:request_errors", "@ERROR_BUDGET@"),
            "1m",
            "critical",
            "Requests for {{ $labels.model }} fail so often that the month's budget of errors is used up within days.",
        ),
        Alert(
            "VilixFirstTokensSlow",
            _burns_fast("vilix:slow_first_tokens", "@SLOW_BUDGET@"),
            "1m",
            "critical",
            "First tokens of {{ $labels.model }} are so slow that the month's budget is used up within days.",
        ),
        Alert(
            "VilixEngineStalled",
            _failures("silent|stalled"),
            "0s",
            "critical",
            "The engine of {{ $labels.model }} at {{ $labels.instance }} did not answer, or made no progress.",
        ),
        Alert(
            "VilixEngineRestarted",
            _failures("died|away|failed"),
            "0s",
            "warning",
            "The engine of {{ $labels.model }} at {{ $labels.instance }} has ended or failed.",
        ),
        Alert(
            "VilixEngineUnavailable",
            f"max by ({MODEL}, instance) (vilix_engine_ready{{{NAMESPACE}}} or"
            f" vilix_embeddings_engine_ready{{{NAMESPACE}}}) == 0",
            "15m",
            "warning",
            "The engine of {{ $labels.model }} at {{ $labels.instance }} does not come back.",
        ),
        Alert(
            "VilixWorkersUnwatched",
            f'absent(vilix_build_info{{{NAMESPACE}, component=~"inference|embeddings"}})'
            f" and on (namespace) sum by (namespace) (vilix_workers_serving{{{NAMESPACE}}}) > 0",
            "15m",
            "warning",
            "Workers serve, and Prometheus reaches none of them: no alert about engines can fire.",
        ),
        Alert(
            "VilixQueueAboveSlots",
            f"sum by ({MODEL}) (vilix_engine_queued{{{NAMESPACE}}})"
            f" > sum by ({MODEL}) (vilix_engine_slots{{{NAMESPACE}}})",
            "5m",
            "warning",
            "More requests wait for {{ $labels.model }} ({{ $value }}) than its engines can run at a time.",
        ),
        Alert(
            "VilixKvCacheFull",
            f"max by ({MODEL}, instance) (vilix_engine_kv_cache_used_ratio{{{NAMESPACE}}}) > 0.95",
            "10m",
            "warning",
            "The KV cache of {{ $labels.model }} at {{ $labels.instance }} is {{ $value | humanizePercentage }} full.",
        ),
        Alert(
            "VilixRequestsFailForDays",
            _burns_slowly("vilix:request_errors", "@ERROR_BUDGET@"),
            "1h",
            "warning",
            "At this rate of errors of {{ $labels.model }}, the month's budget does not last.",
        ),
        Alert(
            "VilixFirstTokensSlowForDays",
            _burns_slowly("vilix:slow_first_tokens", "@SLOW_BUDGET@"),
            "1h",
            "warning",
            "At this rate of slow first tokens of {{ $labels.model }}, the month's budget does not last.",
        ),
        Alert(
            "VilixResponseStoreAway",
            f'min by (namespace) (vilix_redis_up{{{NAMESPACE}, store="responses"}}) == 0',
            "5m",
            "warning",
            "The Redis of stored responses does not reply to a gateway.",
        ),
        Alert(
            "VilixRedisMayLoseKeys",
            f"max by (namespace) (vilix_redis_evicts_keys{{{NAMESPACE}}}) == 1"
            f" or min by (namespace) (vilix_redis_persists{{{NAMESPACE}}}) == 0",
            "5m",
            "warning",
            "Redis may evict keys, or does not persist them.",
        ),
        Alert(
            "VilixRedisMemoryHigh",
            f"max by (namespace) (vilix_redis_used_memory_ratio{{{NAMESPACE}}}) > 0.9",
            "5m",
            "warning",
            "Redis uses {{ $value | humanizePercentage }} of its memory; when it is full, it rejects writes.",
        ),
        Alert(
            "VilixVolumeFull",
            "min by (namespace, persistentvolumeclaim) ("
            f"kubelet_volume_stats_available_bytes{{{NAMESPACE},"
            ' persistentvolumeclaim=~"(data-)?@FULLNAME@-valkey.*|@BACKUP_CLAIM@"}'
            f" / kubelet_volume_stats_capacity_bytes{{{NAMESPACE}}}) < 0.1",
            "15m",
            "warning",
            "The volume {{ $labels.persistentvolumeclaim }} has {{ $value | humanizePercentage }} of its space left.",
        ),
        Alert(
            "VilixCertificateExpires",
            f"min by (namespace, file) ({_EXPIRY}) - time() < @CERTIFICATE_DAYS@ * 86400"
            # NaN, which min leaves out, is the only value that differs from itself.
            f" or max by (namespace, file) ({_EXPIRY} != {_EXPIRY})",
            "15m",
            "critical",
            "A certificate ({{ $labels.file }}) expires in {{ $value | humanizeDuration }}, and was not renewed"
            " (NaN: it cannot be read).",
        ),
    ]


def rules() -> str:
    """Return the text of the rule file: the groups of a PrometheusRule, before the chart's replacements."""
    recorded = [{"record": rule.name, "expr": rule.expression} for rule in records()]
    alerting: list[dict[str, Any]] = [
        {
            "alert": alert.name,
            "expr": alert.expression,
            "for": alert.wait,
            "labels": {"severity": alert.severity},
            "annotations": {"summary": alert.summary, "runbook_url": f"@RUNBOOK@#{alert.name.lower()}"},
        }
        for alert in alerts()
    ]
    groups = [{"name": "vilix.records", "rules": recorded}, {"name": "vilix.alerts", "rules": alerting}]
    return _HEADER + yaml.safe_dump({"groups": groups}, sort_keys=False, width=110, allow_unicode=True)
