"""The reference of the metrics is complete, and their names and labels follow rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from monitoring.__main__ import files
from monitoring.reference import LABELS, SECTIONS, Entry, entries

ROOT: Final = Path(__file__).parents[2]
ENTRIES: Final = [entry for modules in SECTIONS.values() for module in modules for entry in entries(module)]
UNITS: Final = ("_seconds", "_bytes", "_ratio", "_tokens", "_info", "_timestamp_seconds")
COUNTS: Final = {
    "vilix_embeddings_engine_ready", "vilix_embeddings_queued_texts", "vilix_embeddings_requests_in_flight",
    "vilix_engine_in_flight", "vilix_engine_queued", "vilix_engine_ready", "vilix_engine_slots",
    "vilix_engine_tokens_per_second", "vilix_event_loop_tasks", "vilix_gateways", "vilix_generations_in_flight",
    "vilix_http_connections", "vilix_http_requests_in_flight", "vilix_limits_waiting", "vilix_model_available",
    "vilix_model_workers", "vilix_redis_evicts_keys", "vilix_redis_persists", "vilix_redis_rejects_writes",
    "vilix_redis_up", "vilix_usage_unsettled_requests", "vilix_worker_requests_in_flight", "vilix_workers_serving",
}  # fmt: skip
"""Gauges without a unit: numbers of things, and answers to a question (1 or 0)."""
TARGET_LABELS: Final = {"namespace", "service", "pod", "container", "endpoint", "instance", "job"}
"""The labels that the Prometheus operator gives to all series of a ServiceMonitor's targets."""


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text() == files()[path], "run make monitoring"


def test_every_metric_in_the_code_is_in_the_reference() -> None:
    sources = [path.read_text() for path in (ROOT / "services").rglob("*.py") if "node_modules" not in path.parts]
    defined = re.findall(r'(?:Counter|Gauge|Histogram|Summary|Info|Enum)\(\s*"(vilix_\w+)"', "\n".join(sources))
    assert len(defined) > 60
    assert sorted(defined) == sorted(entry.name.removesuffix("_total") for entry in ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_names_and_labels_follow_rules(entry: Entry) -> None:
    assert re.fullmatch(r"vilix(_[a-z]+)+", entry.name)
    assert (entry.type == "counter") is entry.name.endswith("_total")
    assert entry.type in ("counter", "gauge", "histogram")
    if entry.type != "counter":
        assert entry.name.endswith(UNITS) is (entry.name not in COUNTS)
    assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent|rate)(_|$)", entry.name)
    assert set(entry.labels) <= LABELS.keys(), "the reference must say where the values come from"
    assert "key" not in entry.labels
    assert not TARGET_LABELS & set(entry.labels), "Prometheus would rename it to exported_…"
    assert entry.meaning.endswith(".")


def test_every_label_of_the_reference_is_used() -> None:
    assert {label for entry in ENTRIES for label in entry.labels} == LABELS.keys()


def test_metrics_that_were_renamed_are_in_the_upgrade_notes() -> None:
    """Each new name in the table exists."""
    table = (ROOT / "docs" / "upgrading.md").read_text().partition("### Metrics")[2].partition("\n### ")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"vilix_\w+", row.rpartition(" | ")[2])}
    suffixes = ("_bucket", "_sum", "_count")
    known = {entry.name for entry in ENTRIES}
    assert not [name for name in named if name not in known and not name.endswith(suffixes)]
