"""The reference of all metrics, docs/metrics.md, made of the metrics that the services define."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from prometheus_client.metrics import MetricWrapperBase

from services.embeddings import metrics as embeddings
from services.gateway import metrics as gateway
from services.gateway.loop_counter import LoopCounter
from services.gateway.loop_histogram import LoopHistogram
from services.inference import metrics as inference
from services.runtime import certificates, loop_watch, metrics_server
from services.worker import engine_metrics
from services.worker.engine_metrics import ReportedCounter

SECTIONS: Final[Mapping[str, tuple[ModuleType, ...]]] = {
    "Gateway": (gateway,),
    "Inference worker": (inference,),
    "Embeddings worker": (embeddings,),
    "Both workers": (engine_metrics,),
    "Every process": (metrics_server, loop_watch, certificates),
}
"""The modules whose metrics each section lists."""

LABELS: Final = {
    "model": "id of a model that is served, was served or is expected; `none` for a request that names no model, "
    "`unknown` for one whose model does not exist",
    "route": "path of the API as a template; `none` for an unknown path",
    "method": "HTTP method; `other` for an unknown one",
    "status": "HTTP status that the gateway sent; 0 for none",
    "outcome": "end of a request or call: [keys.md](keys.md#usage-records-for-a-data-warehouse) has those of the "
    "gateway; a worker has `ok`, `cancelled` and the reasons of its failures",
    "worker_status": "gRPC status with which the worker failed; empty without a failure",
    "cause": "cause, one of those that the meaning lists",
    "kind": "`prompt` or `completion`",
    "limit": "limit of the key that was reached",
    "decision": "decision without Redis: `key_grace`, `key_rejected`, `limits_local`, `limits_open`, `limits_closed`",
    "result": "result, one of those that the meaning lists",
    "component": "`gateway`, `inference` or `embeddings`",
    "grpc_service": "name of the workers' gRPC service",
    "store": "`keys` or `responses`, as the meaning explains",
    "version": "version of Vilix",
    "file": "`tls.crt` or `ca.crt`",
}
"""The source of each label's values. All of them are ours or the operator's: no text of a caller is a label."""

_INTRODUCTION: Final = """\
# Metrics

Every process serves its metrics in Prometheus's format at `http://HOST:9090/metrics` (`VILIX_METRICS_HOST` and
`VILIX_METRICS_PORT`). `make monitoring` writes this page from the code, and a test checks that it is current.
[operations.md](operations.md) explains the alerts, and [kubernetes.md](kubernetes.md#monitoring) installs them.

- Names follow Prometheus's conventions: base units, `_total` for counters, `_ratio` for 0 to 1.
- A scraper that asks for OpenMetrics, as Prometheus does, also gets exemplars: `request_id` at
  `vilix_http_request_duration_seconds` and `vilix_first_token_seconds`, which leads to the log line of a slow request.
  Prometheus stores them with `--enable-feature=exemplar-storage`.
- No metric has a label `namespace`, `service`, `pod`, `container`, `endpoint`, `instance` or `job`: in Kubernetes,
  Prometheus adds these to every series.
- No label has a text of a caller, and there are no series by key, so that the number of series is bounded: by the
  numbers of models, routes and values in the tables below. Usage by key is in the
  [usage stream](keys.md#usage-records-for-a-data-warehouse) and at `GET /usage`.
- A histogram `NAME` has the series `NAME_bucket`, `NAME_sum` and `NAME_count`.
- Triton's own metrics (`nv_inference_*`, `nv_gpu_*`) are at port 8002 of a worker's pod, and each process also has
  those of Prometheus's Python library (`process_*`, `python_*`).
"""


@dataclass(frozen=True)
class Entry:
    """A metric in the reference."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str


def entries(module: ModuleType) -> Iterator[Entry]:
    """Yield the metrics that a module defines, in its order."""
    for value in vars(module).values():
        if not isinstance(value, MetricWrapperBase | LoopCounter | LoopHistogram | ReportedCounter):
            continue
        for family in value.describe():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = getattr(value, "_labelnames", ()) or getattr(family, "_labelnames", ())
            yield Entry(name, family.type, tuple(labels), family.documentation)


def reference() -> str:
    """Return the text of docs/metrics.md."""
    parts = [_INTRODUCTION]
    for title, modules in SECTIONS.items():
        rows = [
            f"| `{entry.name}` | {entry.type} | {', '.join(f'`{label}`' for label in entry.labels)} | {entry.meaning} |"
            for module in modules
            for entry in entries(module)
        ]
        parts.append(
            "\n".join([f"## {title}\n", "| metric | type | labels | meaning |", "|---|---|---|---|", *rows, ""])
        )
    labels = [f"| `{name}` | {meaning} |" for name, meaning in LABELS.items()]
    parts.append("\n".join(["## Labels\n", "| label | values |", "|---|---|", *labels, ""]))
    return "\n".join(parts)
