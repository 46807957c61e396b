"""The export of spans over OTLP."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from services.runtime.telemetry import configure_logging
from services.runtime.tracing.local_trace import Tracer
from services.runtime.tracing.opening import is_enabled, opened_tracer
from services.runtime.tracing.span import SpanKind
from services.runtime.tracing.trace_context import CURRENT, TraceContext
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, receiving

CALLER = TraceContext("a" * 32, "b" * 16, is_sampled=True, state="vendor=1")
QUEUE = 20


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """End traces with the test, and restore the filters of log handlers."""
    filters = {handler: list(handler.filters) for handler in logging.getLogger().handlers}
    yield
    CURRENT.set(None)
    for handler, before in filters.items():
        handler.filters[:] = before


def set_environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Mapping[str, str]:
    """Set variables that the SDK reads itself, and return the environment."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return os.environ


def export(tracer: Tracer | None, count: int = 1) -> None:
    """Export the traces of some requests."""
    assert tracer is not None
    for number in range(count):
        trace = tracer.begin(CALLER)
        root = trace.root(
            "GET /x", kind=SpanKind.SERVER, attributes={"number": number, "none": None, "list": ["a"]}, error="500"
        )
        trace.end(lambda root=root: [root], has_failed=True)  # type: ignore[misc]  # no type for the default


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_spans_arrive_over_both_protocols(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
    environment = set_environment(
        monkeypatch,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )
    with opened_tracer("gateway", slow_seconds=30, environment=environment) as tracer:
        export(tracer)
    (span,) = receiver.spans()
    assert isinstance(span, ReceivedSpan)
    assert (span.service, span.name, span.kind, span.is_error) == ("vilix-gateway", "GET /x", "server", True)
    assert (span.trace_id, span.parent_id, span.state) == (CALLER.trace_id, CALLER.span_id, "vendor=1")
    assert span.attributes == {"number": 0, "list": ["a"], "error.type": "500"}


def test_the_operator_may_name_the_service(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = set_environment(
        monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.grpc_endpoint, OTEL_SERVICE_NAME="edge"
    )
    with opened_tracer("gateway", slow_seconds=30, environment=environment) as tracer:
        export(tracer)
    assert [span.service for span in receiver.spans()] == ["edge"]


def test_a_collector_that_does_not_answer_holds_up_nothing_and_costs_a_bounded_memory(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = set_environment(
        monkeypatch,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.grpc_endpoint,
        OTEL_BSP_MAX_QUEUE_SIZE=str(QUEUE),
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="1",
    )
    receiver.gate.clear()
    with opened_tracer("gateway", slow_seconds=30, environment=environment) as tracer:
        export(tracer)
        assert receiver.waiting.wait(20)
        # The thread that exports waits for the collector now.
        export(tracer, 100 * QUEUE)
        receiver.gate.set()
    assert 1 < len(receiver.spans()) <= QUEUE + 1


def test_a_collector_that_is_away_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = set_environment(
        monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1"
    )
    with opened_tracer("gateway", slow_seconds=30, environment=environment) as tracer:
        export(tracer, 10_000)


@pytest.mark.parametrize(
    ("environment", "enabled"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_on_if_there_is_an_endpoint(environment: dict[str, str], enabled: bool) -> None:
    assert is_enabled(environment) is enabled


def test_an_unknown_protocol_is_named() -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    with (
        pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_PROTOCOL='http/json' must be grpc or http/protobuf"),
        opened_tracer("gateway", slow_seconds=30, environment=environment),
    ):
        pass


SECRET = "vlx-collector-secret"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HEADERS": f"authorization: Bearer {SECRET}"}, "OTEL_EXPORTER_OTLP_HEADERS must be a list of NAME=VALUE"),
        ({"TRACES_HEADERS": SECRET}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS must be a list of NAME=VALUE"),
        ({"ENDPOINT": f"http://{SECRET}@[::1"}, "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL"),
        ({"TRACES_ENDPOINT": "http://c:port"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT must be a URL"),
        ({"COMPRESSION": "zip"}, "OTEL_EXPORTER_OTLP_COMPRESSION='zip' must be gzip with grpc"),
        (
            {"COMPRESSION": "zip", "PROTOCOL": "http/protobuf"},
            "OTEL_EXPORTER_OTLP_COMPRESSION='zip' must be none or gzip or deflate with http/protobuf",
        ),
        ({"CERTIFICATE": "/nonexistent"}, "OTEL_EXPORTER_OTLP_CERTIFICATE='/nonexistent' cannot be read: No such"),
        ({"TRACES_CLIENT_KEY": "/"}, "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY='/' cannot be read: Is a directory"),
        ({"TIMEOUT": "abc"}, "OTEL_EXPORTER_OTLP_TIMEOUT='abc' must be a number of seconds above 0"),
        ({"TRACES_TIMEOUT": "inf"}, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT='inf' must be a number of seconds above 0"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "abc"}, "OTEL_BSP_MAX_QUEUE_SIZE='abc' must be a whole number above 0"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "0"}, "OTEL_BSP_SCHEDULE_DELAY='0' must be a whole number above 0"),
        (
            {"OTEL_BSP_MAX_QUEUE_SIZE": "20"},
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=512 must be at most OTEL_BSP_MAX_QUEUE_SIZE=20",
        ),
    ],
)
def test_a_wrong_variable_is_named_without_the_secrets_of_headers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str], message: str
) -> None:
    own = {name if name.startswith("OTEL_") else f"OTEL_EXPORTER_OTLP_{name}": text for name, text in variables.items()}
    environment = set_environment(monkeypatch, **{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:9", **own})
    with (
        pytest.raises(ValueError, match=re.escape(message)) as raised,
        opened_tracer("gateway", slow_seconds=30, environment=environment),
    ):
        pass
    assert SECRET not in str(raised.value) + caplog.text


def test_values_that_the_sdk_accepts_are_accepted(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment = set_environment(
        monkeypatch,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer a.b==, x-tenant = one%20two,",
        OTEL_EXPORTER_OTLP_COMPRESSION="none",
        OTEL_EXPORTER_OTLP_TIMEOUT="2.5",
    )
    with opened_tracer("gateway", slow_seconds=30, environment=environment) as tracer:
        export(tracer)
    assert len(receiver.spans()) == 1
    assert caplog.text == ""


def test_log_lines_of_a_traced_request_have_the_id_of_its_trace(
    receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = set_environment(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.grpc_endpoint)
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    try:
        configure_logging("gateway")
        with opened_tracer("gateway", slow_seconds=30, environment=environment) as tracer:
            assert tracer is not None
            tracer.begin(CALLER)
            logging.getLogger("test").info("here")
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    assert f'"message": "here", "trace_id": "{CALLER.trace_id}"' in capsys.readouterr().err


@pytest.mark.parametrize("module", ["services.gateway.app", "services.inference.servicer", "services.worker.main"])
def test_what_exports_traces_is_not_imported_while_they_are_off(module: str) -> None:
    # redis-py imports the SDK's metrics wherever the SDK is installed.
    code = (
        f"import sys, {module}\n"
        "PREFIXES = ('opentelemetry.sdk.trace', 'opentelemetry.exporter', 'opentelemetry.proto', 'requests')\n"
        "from services.runtime.tracing.opening import opened_tracer\n"
        "with opened_tracer('gateway', slow_seconds=30, environment={}) as tracer:\n"
        "    assert tracer is None\n"
        "print([name for name in sys.modules if name.startswith(PREFIXES)])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert printed.stdout == "[]\n"
