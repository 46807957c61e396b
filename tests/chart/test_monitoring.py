"""The rules fire when they should, and only then; every one leads to its section; the dashboards are those in the code.

promtool evaluates the rules that the chart renders. tests/faults/test_monitoring.py lets them fire in a real system.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.dashboards import dashboards
from monitoring.gateway_dashboard import gateway
from monitoring.panels import Dashboard
from monitoring.reference import SECTIONS, entries
from monitoring.rules import alerts, records
from tests.support.helm import Manifest, find, template, try_template
from tests.support.repository import ROOT
from tests.support.system_packages import require

ENABLED = ["monitoring.enabled=true"]
GENERATED = re.compile(r"@[A-Z_]+@")


@dataclass(frozen=True)
class Case:
    """Series, as promtool writes them, during which an alert fires and during which it does not."""

    fires: Sequence[str]
    quiet: Sequence[str]
    at: str
    """The time at which the alert fires. The quiet series must not have fired it by then."""
    labels: str = ""
    """The labels of the alert besides those that all have."""


def outcomes(complete: str, failed: str) -> list[str]:
    return [
        f'vilix_request_outcomes_total{{model="m",outcome="complete",instance="g"}} {complete}',
        f'vilix_request_outcomes_total{{model="m",outcome="broken off",instance="g"}} {failed}',
        # Mistakes of callers, and clients that disconnect, are no failures of ours, however many they are.
        'vilix_request_outcomes_total{model="m",outcome="rejected",instance="g"} 0+1000x600',
        'vilix_request_outcomes_total{model="m",outcome="client gone",instance="g"} 0+1000x600',
    ]


def first_tokens(in_time: str, all_: str) -> list[str]:
    return [
        f'vilix_first_token_seconds_bucket{{model="m",le="2.5",instance="g"}} {in_time}',
        f'vilix_first_token_seconds_bucket{{model="m",le="+Inf",instance="g"}} {all_}',
        f'vilix_first_token_seconds_count{{model="m",instance="g"}} {all_}',
    ]


def failures(cause: str, values: str) -> list[str]:
    return [f'vilix_engine_failures_total{{model="m",cause="{cause}",instance="w"}} {values}']


def available(gateway: str, values: str) -> list[str]:
    return [f'vilix_model_available{{model="m",instance="{gateway}"}} {values}']


def queue(queued: int) -> list[str]:
    pods = [f'vilix_engine_{name}{{model="m",instance="{pod}"}}' for name in ("queued", "slots") for pod in "ab"]
    return [f"{pods[0]} {queued}x60", f"{pods[1]} 1x60", f"{pods[2]} 8x60", f"{pods[3]} 8x60"]


def volume(claim: str, available: int) -> list[str]:
    return [
        f'kubelet_volume_stats_available_bytes{{persistentvolumeclaim="{claim}"}} {available}x60',
        f'kubelet_volume_stats_capacity_bytes{{persistentvolumeclaim="{claim}"}} 1000x60',
    ]


ONE_MODEL, ENGINE = 'model="m"', 'instance="w",model="m"'
CASES = {
    "VilixGatewayMissing": Case(
        ['vilix_build_info{component="inference"} 1x60', 'vilix_build_info{component="gateway"} 1x2 stale'],
        ['vilix_build_info{component="gateway"} 1x60'],
        "10m",
        'component="gateway"',
    ),
    "VilixModelUnavailable": Case(
        [
            'vilix_model_available{model="m",instance="a"} 1x5 0x60',
            'vilix_model_available{model="m",instance="b"} 0x60',
        ],
        ['vilix_model_available{model="m",instance="a"} 0x60', 'vilix_model_available{model="m",instance="b"} 1x60'],
        "9m",
        ONE_MODEL,
    ),
    "VilixRedisAway": Case(
        ['vilix_redis_up{store="keys",instance="a"} 1x60', 'vilix_redis_up{store="keys",instance="b"} 1x5 0x60'],
        ['vilix_redis_up{store="keys",instance="a"} 1x60', 'vilix_redis_up{store="responses",instance="a"} 0x60'],
        "8m",
    ),
    "VilixRedisRejectsWrites": Case(
        ['vilix_redis_rejects_writes{instance="a"} 0x5 1x60'], ['vilix_redis_rejects_writes{instance="a"} 0x60'], "8m"
    ),
    # 2 % of requests fail for an hour; 1 % do, or 4 in an hour.
    "VilixRequestsFail": Case(outcomes("0+98x600", "0+2x600"), outcomes("0+99x600", "0+0.5x600"), "70m", ONE_MODEL),
    "VilixFirstTokensSlow": Case(
        first_tokens("0+2x600", "0+10x600"), first_tokens("0+9x600", "0+10x600"), "70m", ONE_MODEL
    ),
    "VilixEngineStalled": Case(failures("silent", "0x5 1x60"), failures("died", "0x5 1x60"), "7m", ENGINE),
    "VilixEngineRestarted": Case(failures("away", "0x5 1x60"), failures("stalled", "0x5 1x60"), "7m", ENGINE),
    "VilixEngineUnavailable": Case(
        ['vilix_engine_ready{model="m",instance="w"} 0x60', 'vilix_engine_ready{model="m",instance="v"} 1x60'],
        ['vilix_engine_ready{model="m",instance="w"} 0x10 1 0x60'],
        "20m",
        ENGINE,
    ),
    "VilixWorkersUnwatched": Case(
        [
            'vilix_build_info{component="gateway",instance="a"} 1x60',
            'vilix_workers_serving{grpc_service="i",instance="a"} 1x60',
            'vilix_build_info{component="inference",instance="w"} 1x2 stale',
        ],
        [
            'vilix_build_info{component="gateway",instance="a"} 1x60',
            'vilix_workers_serving{grpc_service="i",instance="a"} 1x20 0x60',
            'vilix_build_info{component="embeddings",instance="w"} 1x20 stale',
        ],
        "30m",
    ),
    "VilixQueueAboveSlots": Case(queue(16), queue(15), "7m", ONE_MODEL),
    "VilixKvCacheFull": Case(
        ['vilix_engine_kv_cache_used_ratio{model="m",instance="w"} 0.96x60'],
        ['vilix_engine_kv_cache_used_ratio{model="m",instance="w"} 0.94x60'],
        "12m",
        ENGINE,
    ),
    # One and a half times the budget, for as long as there are data.
    "VilixRequestsFailForDays": Case(
        outcomes("0+9985x600", "0+15x600"), outcomes("0+9995x600", "0+5x600"), "8h", ONE_MODEL
    ),
    "VilixFirstTokensSlowForDays": Case(
        first_tokens("0+94x600", "0+100x600"), first_tokens("0+96x600", "0+100x600"), "8h", ONE_MODEL
    ),
    "VilixResponseStoreAway": Case(
        ['vilix_redis_up{store="responses",instance="a"} 0x60'],
        ['vilix_redis_up{store="responses",instance="a"} 1x60', 'vilix_redis_up{store="keys",instance="a"} 0x60'],
        "7m",
    ),
    "VilixRedisMayLoseKeys": Case(
        ['vilix_redis_evicts_keys{instance="a"} 1x60', 'vilix_redis_persists{instance="a"} 1x60'],
        [
            'vilix_redis_evicts_keys{instance="a"} 0x60',
            'vilix_redis_persists{instance="a"} NaN NaN NaN NaN NaN NaN NaN NaN',
        ],
        "7m",
    ),
    "VilixRedisMemoryHigh": Case(
        ['vilix_redis_used_memory_ratio{instance="a"} 0.91x60'],
        [
            'vilix_redis_used_memory_ratio{instance="a"} 0.89x60',
            'vilix_redis_used_memory_ratio{instance="b"} NaN NaN NaN NaN NaN NaN NaN NaN',
        ],
        "7m",
    ),
    "VilixVolumeFull": Case(
        volume("data-vilix-valkey-0", 99),
        [*volume("data-vilix-valkey-0", 101), *volume("vilix-qwen3-8b", 1)],
        "20m",
        'persistentvolumeclaim="data-vilix-valkey-0"',
    ),
    # Time begins at 0: five days and 30 minutes later.
    "VilixCertificateExpires": Case(
        ['vilix_certificate_expiry_timestamp_seconds{file="tls.crt",instance="a"} 432000x120'],
        ['vilix_certificate_expiry_timestamp_seconds{file="tls.crt",instance="a"} 440000x120'],
        "20m",
        'file="tls.crt"',
    ),
}
"""For each alert. All series also get the namespace, and once more another one, which must fire nothing here."""


@pytest.fixture(scope="module")
def enabled() -> list[Manifest]:
    return template(sets=ENABLED)


@pytest.fixture(scope="module")
def rules(enabled: list[Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the rules that the chart renders with its defaults."""
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump(find(enabled, "PrometheusRule", "vilix")["spec"]))
    return path


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = require("promtool", package="prometheus")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=100, check=False)


def series(namespace: str, text: str) -> dict[str, str]:
    name, values = text.split("} ") if "} " in text else (text, "")
    target = f'namespace="{namespace}",service="vilix-gateway-metrics",'
    return {"series": name.replace("{", f"{{{target}", 1) + "}", "values": values}


def alert_test(name: str, case: Case, *, fires: bool, severity: str) -> dict[str, Any]:
    own = case.fires if fires else case.quiet
    labels = ", ".join(
        [f'__name__="ALERTS", alertname="{name}", alertstate="firing"', 'namespace="ai"', f'severity="{severity}"']
        + ([case.labels] if case.labels else [])
    )
    expected = [{"labels": f"{{{labels}}}", "value": 1}] if fires else []
    inputs = [series("ai", text) for text in own] + [series("other", text) for text in case.fires]
    query = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
    test = {"expr": query, "eval_time": case.at, "exp_samples": expected}
    return {"name": f"{name}, {fires}", "interval": "1m", "input_series": inputs, "promql_expr_test": [test]}


def run_tests(rules: Path, tests: list[dict[str, Any]], *, every: str = "1m") -> str:
    """Return what promtool reports about tests, for which it evaluates the rules so often; nothing if all pass."""
    path = rules.with_name("tests.yaml")
    path.write_text(yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": every, "tests": tests}))
    result = promtool("test", "rules", path)
    return "" if result.returncode == 0 else result.stdout + result.stderr


def test_promtool_accepts_the_rules(rules: Path) -> None:
    result = promtool("check", "rules", rules)
    assert result.returncode == 0, result.stderr
    assert f"{len(records()) + len(alerts())} rules found" in result.stdout
    assert not GENERATED.search(rules.read_text()), "the chart has not replaced everything"


def test_every_alert_has_a_case() -> None:
    assert [alert.name for alert in alerts()] == list(CASES)


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "quiet"])
def test_alerts_fire_when_they_should_and_only_then(rules: Path, fires: bool) -> None:
    severities = {alert.name: alert.severity for alert in alerts()}
    for every, is_long in (("1m", False), ("4m", True)):
        cases = {name: case for name, case in CASES.items() if case.at.endswith("h") is is_long}
        tests = [alert_test(name, case, fires=fires, severity=severities[name]) for name, case in cases.items()]
        assert tests
        assert run_tests(rules, tests, every=every) == ""


def test_the_tests_of_alerts_see_a_difference(rules: Path) -> None:
    case = Case(CASES["VilixRedisAway"].quiet, (), "8m")
    assert "VilixRedisAway" in run_tests(rules, [alert_test("VilixRedisAway", case, fires=True, severity="critical")])


def test_a_few_failures_of_few_requests_are_no_alert_for_days(rules: Path) -> None:
    """Four failures in eight hours, which are 4 % of the requests."""
    few = Case((), [*outcomes("0+1x600", "0x100 1x100 2x100 3x100 4x100"), *first_tokens("0+1x600", "0+1x600")], "8h")
    tests = [alert_test(name, few, fires=False, severity="warning") for name in CASES if name.endswith("ForDays")]
    assert run_tests(rules, tests, every="4m") == ""


def test_a_certificate_that_cannot_be_read_is_an_alert(rules: Path) -> None:
    name = "vilix_certificate_expiry_timestamp_seconds"
    inputs = [f'{name}{{file="tls.crt",instance="a"}} {" ".join(["NaN"] * 30)}']
    inputs += [f'{name}{{file="{file}",instance="b"}} 999999999x60' for file in ("tls.crt", "ca.crt")]
    case = Case(inputs, (), "20m", 'file="tls.crt"')
    assert run_tests(rules, [alert_test("VilixCertificateExpires", case, fires=True, severity="critical")]) == ""


def test_a_panel_counts_the_processes_that_cannot_read_a_certificate(rules: Path) -> None:
    (query,) = (query for panel, query in gateway().queries() if panel == "Certificates that cannot be read")
    name = "vilix_certificate_expiry_timestamp_seconds"
    inputs = [series("ai", f'{name}{{file="tls.crt",instance="{each}"}} {each} {each} {each}') for each in ("NaN", "1")]
    inputs += [series("ai", f'{name}{{file="ca.crt",instance="1"}} 1x5')]
    samples = [{"labels": f'{{file="{file}"}}', "value": value} for file, value in (("tls.crt", 1), ("ca.crt", 0))]
    test = {"expr": query.expression.replace("$namespace", "ai"), "eval_time": "2m", "exp_samples": samples}
    assert run_tests(rules, [{"interval": "1m", "input_series": inputs, "promql_expr_test": [test]}]) == ""


def test_the_alert_of_volumes_covers_a_claim_for_backups_that_exists(tmp_path: Path) -> None:
    manifests = template(sets=[*ENABLED, "valkey.backup.enabled=true", "valkey.backup.existingClaim=nightly.copies"])
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(find(manifests, "PrometheusRule", "vilix")["spec"]))
    tests = [
        alert_test(
            "VilixVolumeFull",
            Case(volume(claim, 99), volume("nightly-copies", 99), "20m", f'persistentvolumeclaim="{claim}"'),
            fires=fires,
            severity="warning",
        )
        for claim in ("nightly.copies", "data-vilix-valkey-0")
        for fires in (True, False)
    ]
    assert run_tests(rules, tests) == ""


def test_recording_rules_have_the_values_that_they_name(rules: Path) -> None:
    inputs = [*outcomes("0+90x600", "0+10x600"), *first_tokens("0+3x600", "0+4x600")]
    inputs += [f'vilix_tokens_total{{model="m",kind="prompt",instance="{gateway}"}} 0+600x600' for gateway in "ab"]
    for pod, (running, queued) in {"a": (8, 4), "b": (2, 0)}.items():
        inputs += [f'vilix_engine_in_flight{{model="m",instance="{pod}"}} {running}x600']
        inputs += [f'vilix_engine_queued{{model="m",instance="{pod}"}} {queued}x600']
        inputs += [f'vilix_engine_slots{{model="m",instance="{pod}"}} 8x600']
    expected = {rule.name: 0.1 if "errors" in rule.name else 0.25 for rule in records()}
    expected |= {"vilix:request_errors:increase1h": 600, "vilix:slow_first_tokens:increase1h": 60}
    # Nine hours of data.
    expected |= {"vilix:request_errors:increase3d": 5400, "vilix:slow_first_tokens:increase3d": 540}
    expected |= {"vilix:tokens:rate5m": 20, "vilix:engine_load:ratio": 0.875}
    tests = [
        {
            "expr": f'round({name}{{namespace="ai"}}, 0.001)',
            "eval_time": "9h",
            "exp_samples": [
                {
                    "labels": '{model="m", namespace="ai"'
                    + (', kind="prompt"' if name.startswith("vilix:tokens") else "")
                    + "}"
                }
                | {"value": value}
            ],
        }
        for name, value in expected.items()
    ]
    one = {"interval": "1m", "input_series": [series("ai", text) for text in inputs], "promql_expr_test": tests}
    assert run_tests(rules, [one], every="4m") == ""


def test_every_alert_leads_to_its_section(rules: Path) -> None:
    document = (ROOT / "docs" / "operations.md").read_text()
    sections = dict(re.findall(r"^### (Vilix\w+)\n(.*?)(?=^#|\Z)", document, re.MULTILINE | re.DOTALL))
    rendered = [rule for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]]
    fired = {rule["alert"]: rule for rule in rendered if "alert" in rule}
    assert list(sections) == list(fired)
    for name, rule in fired.items():
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
        assert all(f"**{part}.**" in sections[name] for part in ("Meaning", "Check", "Action")), name


def test_operators_choose_levels_labels_and_addresses() -> None:
    levels = {"availability": 99.5, "firstTokens": 94, "firstTokenSeconds": 10, "certificateDays": 2}
    own = {**levels, "runbookUrl": "https://wiki.example.com/vilix", "labels": {"prometheus": "main"}}
    sets = [
        f"monitoring.rules={json.dumps(own)}",
        "monitoring.labels.release=stack",
        "monitoring.dashboards.namespace=grafana",
        "monitoring.dashboards.annotations.folder=AI",
    ]
    manifests = template(sets=[*ENABLED, *sets], release="two")
    rule = find(manifests, "PrometheusRule", "two")
    text = json.dumps(rule)
    for part in ("14.4 * 0.005 ", "14.4 * 0.06 ", 'le=\\"10.0\\"', "2 * 86400", "https://wiki.example.com/vilix#vilix"):
        assert part in text, part
    assert (rule["metadata"]["labels"]["prometheus"], "release" in rule["metadata"]["labels"]) == ("main", False)
    dashboard = find(manifests, "ConfigMap", "two-dashboard-overview")["metadata"]
    assert (dashboard["namespace"], dashboard["annotations"]) == ("grafana", {"folder": "AI"})
    assert dashboard["labels"]["grafana_dashboard"] == "1"


@pytest.mark.parametrize(
    "setting",
    [
        "availability=100",
        "firstTokens=0",
        # 14.4 times the budget would be more than all requests, so that no critical alert could fire.
        "availability=93",
        "firstTokens=93",
        "firstTokenSeconds=3",
        "certificateDays=0",
        "runbookUrl=",
    ],
)
def test_levels_that_no_rule_can_have_are_rejected(setting: str) -> None:
    result = try_template(sets=[*ENABLED, f"monitoring.rules.{setting}"])
    assert result.returncode != 0
    assert setting.partition("=")[0] in result.stderr


@pytest.mark.parametrize(("interval", "is_accepted"), [("2m", True), ("90s", True), ("121s", False), ("5m", False)])
def test_scrapes_are_frequent_enough_for_rates_over_five_minutes(interval: str, is_accepted: bool) -> None:
    result = try_template(sets=[*ENABLED, f"monitoring.interval={interval}"])
    assert (result.returncode == 0) is is_accepted
    assert is_accepted or "interval" in result.stderr


def test_nothing_is_rendered_without_monitoring() -> None:
    for sets in ([], [*ENABLED, "monitoring.rules.enabled=false", "monitoring.dashboards.enabled=false"]):
        kinds = [(m["kind"], m["metadata"]["name"]) for m in template(sets=sets)]
        assert not [name for kind, name in kinds if kind == "PrometheusRule" or "dashboard" in name]


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda each: each.name)
def test_the_chart_ships_the_dashboards_of_the_code(enabled: list[Manifest], dashboard: Dashboard) -> None:
    data = find(enabled, "ConfigMap", f"vilix-dashboard-{dashboard.name}")["data"]
    assert json.loads(data[f"vilix-{dashboard.name}.json"]) == json.loads(dashboard.json())


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda each: each.name)
def test_panels_do_not_overlap_and_have_queries_of_metrics_that_exist(dashboard: Dashboard) -> None:
    panels = json.loads(dashboard.json())["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    names = {entry.name for modules in SECTIONS.values() for module in modules for entry in entries(module)}
    recorded = {rule.name for rule in records()}
    for title, query in dashboard.queries():
        used = set(re.findall(r"vilix[_:][a-z_:0-9]+", query.expression))
        bare = {re.sub(r"_(bucket|count|sum)$", "", name) for name in used}
        assert bare, title
        assert not {name for name in bare if name not in names | recorded}, title
        assert "namespace" in query.expression, title
