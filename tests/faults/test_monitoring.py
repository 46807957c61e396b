"""The dashboards and alerts of the chart, with a real Prometheus that scrapes a real system under load and faults.

Alerts wait 0 s here, and the service level of first tokens is one second; everything else is as the chart renders it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from monitoring.dashboards import dashboards
from monitoring.panels import Dashboard
from monitoring.rules import alerts, records
from services.gateway.tenancy import keys
from services.gateway.tenancy.limits import Limits
from services.stack.ports import LOOPBACK, free_ports
from tests.faults.chat_stream import MODEL, body, read
from tests.faults.everything import Everything, running_everything
from tests.faults.process import Process, frozen_process
from tests.faults.recordings import SLOW, STEADY
from tests.support.certificates import Authority
from tests.support.fault_table import FULL, times
from tests.support.helm import find, template
from tests.support.kubelet import small_volume
from tests.support.prometheus import KUBELET, Prometheus, running_prometheus
from tests.support.repository import ROOT
from tests.support.system_packages import require
from tests.support.triton_servers import EMBEDDING_MODEL
from tests.support.waits import until

SLOTS: Final = 4
OVERLOAD: Final = 2 * SLOTS + 1
"""Requests at the same time of which more wait than run."""
LEVELS: Final = {"availability": 99.9, "firstTokens": 99.9, "firstTokenSeconds": 1}
SETTINGS: Final = {"VILIX_REDIS_CHECK_SECONDS": "0.5", "VILIX_REDIS_TIMEOUT": "0.3"}
INTERVAL: Final = "30s"
"""The value of `$__rate_interval`."""
VOLUME_FULL: Final = "VilixVolumeFull"
"""The alert that has a test of its own, because not every machine lets a test mount a volume."""
LASTING: Final = {
    "VilixCertificateExpires": "ca.crt is not renewed",
    "VilixResponseStoreAway": "the gateway with certificates has a wrong address for it",
    "VilixFirstTokensSlow": "the machine may have been busy",
    "VilixFirstTokensSlowForDays": "the same",
}
"""The alerts that may fire all the time."""
PAGE: Final = ROOT / "docs" / "dashboards.md"
HEAD: Final = """\
# The dashboards in a load run

`make faults` wrote this page. It has a row for each query of each panel: how many series a real Prometheus returned for
it after it had scraped a real system under load (gateways, workers, Tritons with recorded responses, Valkey), and the
largest value of them. The test fails for a query without data. Zero is a counter whose event did not happen.
"""
TABLE: Final = ("| dashboard | panel | query | series | largest value |", "|---|---|---|---|---|")


@dataclass
class Watched:
    """A system, a gateway with certificates beside it, and the Prometheus that scrapes all of it."""

    everything: Everything
    tls_gateway: Process
    authority: Authority
    certificates: Path
    prometheus: Prometheus

    @property
    def gateways(self) -> list[str]:
        """The addresses of the metrics of all gateways."""
        processes = (*self.everything.system.gateways, self.tls_gateway)
        return [f"{LOOPBACK}:{gateway.metrics_port}" for gateway in processes]

    @property
    def targets(self) -> list[str]:
        """The addresses of all metrics."""
        return sorted({*self.everything.metrics.values(), *self.gateways})

    @property
    def client(self) -> httpx.AsyncClient:
        return self.everything.system.client()


def rendered_groups() -> list[dict[str, Any]]:
    """Return the groups of rules that the chart renders, with alerts that do not wait."""
    sets = ["monitoring.enabled=true", f"monitoring.rules={json.dumps(LEVELS)}"]
    groups: list[dict[str, Any]] = find(template(sets=sets), "PrometheusRule", "vilix")["spec"]["groups"]
    for group in groups:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["for"] = "0s"
    return groups


@contextlib.contextmanager
def gateway_with_certificates(directory: Path, certificates: Path, redis_url: str) -> Any:
    """Run a gateway that has certificates for mTLS, and no workers."""
    port, metrics_port = free_ports(2)
    environment = {
        "VILIX_PORT": str(port),
        "VILIX_METRICS_PORT": str(metrics_port),
        "VILIX_REDIS_URL": redis_url,
        "VILIX_INFERENCE_WORKERS": "",
        "VILIX_TLS_DIR": str(certificates),
        # Nothing listens there.
        "VILIX_STATE_REDIS_URL": f"redis://{LOOPBACK}:1/0",
        "VILIX_STORE_SWEEP_SECONDS": "0.5",
    }
    argv = [sys.executable, "-m", "services.gateway"]
    process = Process("tls gateway", argv, environment, directory / "tls-gateway.log", port, metrics_port)
    process.start()
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    # Before everything else is started.
    require("prometheus", package="prometheus")
    directory = tmp_path_factory.mktemp("monitoring")
    groups = rendered_groups()
    authority, certificates = Authority(directory / "authority"), directory / "tls"
    authority.issue(certificates, name="vilix-gateway", days=3)
    async with running_everything(directory, slots=SLOTS, gateway_settings=SETTINGS) as everything:
        await everything.system.redis.config_set("maxmemory", str(2**30))
        with gateway_with_certificates(directory, certificates, everything.system.redis_url) as gateway:
            targets = [*everything.metrics.values(), f"{LOOPBACK}:{gateway.metrics_port}"]
            async with running_prometheus(directory / "prometheus", targets, groups) as prometheus:
                yield Watched(everything, gateway, authority, certificates, prometheus)


async def load(watched: Watched) -> None:
    """Send what clients send: responses, embeddings, mistakes, too many requests, and a client that disconnects."""
    client, redis = watched.client, watched.everything.system.redis
    _, secret = await keys.create(redis, name="limited", limits=Limits(rpm=1))
    limited = {"Authorization": f"Bearer {secret}"}
    for _ in range(2):
        await client.post("/chat/completions", json=body(stream=False), headers=limited)
    await client.post("/chat/completions", json=body(), headers={"Authorization": "Bearer vlx_unknown"})
    await client.post("/chat/completions", json=body(model="nothing"))
    await asyncio.gather(*(read(client, STEADY, max_tokens=20) for _ in range(SLOTS)))
    for _ in range(5):
        assert (await read(client, "")).is_whole
        embedded = await client.post("/embeddings", json={"model": EMBEDDING_MODEL, "input": ["سلام", "hello"]})
        assert embedded.status_code == 200


def resolved(expression: str) -> str:
    """Return a query as Grafana would send it."""
    for variable in ("namespace", "model"):
        expression = expression.replace(f"${variable}", ".*")
    return expression.replace("$__rate_interval", INTERVAL)


async def empty_panels(prometheus: Prometheus, dashboard: Dashboard, table: list[str] | None = None) -> list[str]:
    """Return the queries of a dashboard that have no data, and add a row for each query to `table`."""
    empty = []
    for title, query in dashboard.queries():
        samples = await prometheus.query(resolved(query.expression))
        if not samples:
            empty.append(f"{dashboard.name}, {title}: {query.expression}")
        elif table is not None:
            largest = max(samples, key=lambda sample: sample.value)
            table.append(f"| {dashboard.name} | {title} | {query.legend} | {len(samples)} | {largest.value:.4g} |")
    return empty


@pytest.mark.timeout(300)
async def test_every_query_has_data_under_load(watched: Watched) -> None:
    prometheus, table = watched.prometheus, list[str]()
    # A rate needs two scrapes before the event and after it.
    await until(lambda: _scraped(prometheus, 2), what="Prometheus has scraped everything twice")
    sending = asyncio.ensure_future(_keep_sending(watched))
    try:
        await until(lambda: _has_served(prometheus, times(20, 300)), 100, "there was load")
        for dashboard in dashboards():

            async def is_complete(dashboard: Dashboard = dashboard) -> bool:
                return await empty_panels(prometheus, dashboard) == []

            with contextlib.suppress(AssertionError):
                await until(is_complete, 20)
            assert await empty_panels(prometheus, dashboard, table) == []
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    print("", *TABLE, *table, sep="\n")
    if FULL:
        PAGE.write_text("\n".join([HEAD, *TABLE, *table, ""]))
    for rule in records():
        assert await prometheus.query(rule.name), rule.name
    exemplars = await prometheus.get("query_exemplars", query="vilix_first_token_seconds_bucket", start="0", end="9e9")
    assert any("request_id" in exemplar["labels"] for series in exemplars for exemplar in series["exemplars"])


async def _scraped(prometheus: Prometheus, times: int) -> bool:
    targets = await prometheus.query(f"count_over_time(up[5m]) >= {times} and up == 1")
    active = (await prometheus.get("targets"))["activeTargets"]
    return len(targets) == len(active)


async def _has_served(prometheus: Prometheus, requests: int) -> bool:
    return bool(await prometheus.query(f"sum(vilix_request_outcomes_total) >= {requests}"))


async def _keep_sending(watched: Watched) -> None:
    client = watched.client
    await load(watched)
    while True:
        await asyncio.gather(*(read(client, "") for _ in range(SLOTS)))
        await client.post("/embeddings", json={"model": EMBEDDING_MODEL, "input": "hello"})


@pytest.mark.timeout(300)
async def test_every_rule_is_evaluated_without_an_error(watched: Watched) -> None:
    await until(lambda: _all_evaluated(watched.prometheus), what="all rules were evaluated")
    rules = [rule for group in (await watched.prometheus.get("rules"))["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []
    assert len(rules) == len(records()) + len(alerts())


async def _all_evaluated(prometheus: Prometheus) -> bool:
    rules = [rule for group in (await prometheus.get("rules"))["groups"] for rule in group["rules"]]
    return all(rule["health"] != "unknown" for rule in rules)


@pytest.mark.timeout(300)
async def test_a_volume_that_is_almost_full_fires_its_alert(watched: Watched, tmp_path: Path) -> None:
    prometheus = watched.prometheus
    with small_volume(tmp_path / "volume", claim="data-vilix-valkey-0") as volume:
        prometheus.scrape([volume.kubelet], job=KUBELET)
        volume.fill()
        await prometheus.until_firing(VOLUME_FULL)
        volume.clear()
        await prometheus.until_quiet(VOLUME_FULL)
        prometheus.scrape([], job=KUBELET)


@pytest.mark.timeout(300)
async def test_every_other_alert_fires_once_for_a_real_fault(watched: Watched) -> None:
    prometheus, system = watched.prometheus, watched.everything.system
    client, redis = watched.client, system.redis
    fired: set[str] = set()

    async def expect(*names: str) -> None:
        await prometheus.until_firing(*names)
        fired.update(names)

    # A wrong address of the store of responses. A certificate that was not renewed; and the renewal.
    await expect("VilixResponseStoreAway", "VilixCertificateExpires")
    watched.authority.issue(watched.certificates, name="vilix-gateway", days=90)
    await until(lambda: _is_renewed(prometheus), what="the alert about tls.crt ends")

    await prometheus.until_quiet(*({alert.name for alert in alerts()} - LASTING.keys()))

    # A Prometheus that does not find the workers.
    prometheus.scrape(watched.gateways)
    await expect("VilixWorkersUnwatched")
    prometheus.scrape(watched.targets)
    await prometheus.until_quiet("VilixWorkersUnwatched")

    # More requests than slots, each with a slow first token.
    requests = [asyncio.ensure_future(read(client, SLOW)) for _ in range(OVERLOAD)]
    await expect("VilixQueueAboveSlots", "VilixKvCacheFull")
    assert all(stream.is_whole for stream in await asyncio.gather(*requests))
    await expect("VilixFirstTokensSlow", "VilixFirstTokensSlowForDays")
    await prometheus.until_quiet("VilixQueueAboveSlots", "VilixKvCacheFull")

    # Redis that is configured wrongly, almost full, and without the replicas that it must have.
    used = int((await redis.info("memory"))["used_memory"])
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    await redis.config_set("maxmemory", str(used * 21 // 20))
    await expect("VilixRedisMayLoseKeys", "VilixRedisMemoryHigh")
    await redis.config_set("maxmemory", str(2**30))
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("min-replicas-to-write", "1")
    await client.post("/chat/completions", json=body(stream=False))
    await expect("VilixRedisRejectsWrites")
    await redis.config_set("min-replicas-to-write", "0")
    redis_alerts = ("VilixRedisMayLoseKeys", "VilixRedisMemoryHigh", "VilixRedisRejectsWrites")
    await prometheus.until_quiet(*redis_alerts)

    # Redis that freezes.
    with system.valkey.frozen():
        await client.post("/chat/completions", json=body(stream=False))
        await expect("VilixRedisAway")
    await prometheus.until_quiet("VilixRedisAway")

    # An engine that freezes: its model has no other worker, and its requests fail.
    with frozen_process(system.triton.process.pid), frozen_process(system.triton.stub(MODEL)):
        await expect("VilixEngineStalled", "VilixModelUnavailable", "VilixEngineUnavailable")
        failed = [await client.post("/chat/completions", json=body(stream=False)) for _ in range(10)]
        assert {response.status_code for response in failed} == {503}
        await expect("VilixRequestsFail", "VilixRequestsFailForDays")
    await prometheus.until_quiet("VilixModelUnavailable", "VilixEngineUnavailable")

    # An engine that ends.
    system.triton.kill()
    await expect("VilixEngineRestarted", "VilixModelUnavailable")

    # No gateway is left.
    system.gateway.signal(signal.SIGKILL)
    watched.tls_gateway.signal(signal.SIGKILL)
    await expect("VilixGatewayMissing")
    assert fired == {alert.name for alert in alerts()} - {VOLUME_FULL}
    for alert in (await prometheus.get("alerts"))["alerts"]:
        assert not re.search(r"\{\{|<no value>|error expanding", alert["annotations"]["summary"]), alert


async def _is_renewed(prometheus: Prometheus) -> bool:
    firing = await prometheus.firing()
    return not [alert for alert in firing if alert.get("file") == "tls.crt"]
