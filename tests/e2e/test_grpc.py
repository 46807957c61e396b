"""The worker's gRPC API, as internal services use it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from tests.e2e.stack import RunningStack
from tests.support.repository import ROOT

SERVICE = "vilix.inference.v1.InferenceService"


@pytest.fixture
def channel(stack: RunningStack) -> grpc.Channel:
    with grpc.insecure_channel(stack.state["inference_target"]) as channel:
        yield channel


def question(text: str, **fields: object) -> pb.GenerateRequest:
    message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text=text)])
    return pb.GenerateRequest(model="smollm2-135m", messages=[message], **fields)


def test_the_example_of_the_readme_prints_a_response(stack: RunningStack, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "import grpc" in block)
    assert len(code.strip().splitlines()) <= 20
    (tmp_path / ".run").symlink_to(stack.directory)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) > 3


def test_events_are_in_order_and_their_tokens_add_up_to_the_usage(channel: grpc.Channel) -> None:
    stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
    request = question("Tell me about rivers.", sampling=pb.SamplingParams(max_tokens=40, seed=3), n=2)
    events = [event for response in stub.Generate(request, timeout=60) for event in response.events]
    kinds = [event.WhichOneof("event") for event in events]
    assert (kinds[0], kinds[-1]) == ("started", "usage")
    assert kinds.count("finish") == 2
    for index in (0, 1):
        own = [
            e
            for e in events
            if e.WhichOneof("event") in ("delta", "finish") and getattr(e, e.WhichOneof("event")).index == index
        ]
        assert own[-1].WhichOneof("event") == "finish"
    assert sum(e.delta.token_count for e in events) == events[-1].usage.completion_tokens
    assert events[0].started.prompt_tokens == events[-1].usage.prompt_tokens


def test_reflection_lists_the_service(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())


@pytest.mark.parametrize("service", ["", SERVICE])
def test_the_health_service_reports_each_service(channel: grpc.Channel, service: str) -> None:
    reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_a_rejection_names_field_value_and_limit(channel: grpc.Channel) -> None:
    stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Generate(question("Hello", sampling=pb.SamplingParams(temperature=3)), timeout=10))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    status = rpc_status.from_call(caught.value)
    assert status is not None
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.domain, info.reason) == ("vilix", "INVALID_ARGUMENT")
    assert bad.field_violations[0].field == "sampling.temperature"
    assert (info.metadata["message_id"], info.metadata["value"]) == ("out_of_range", "3")


def test_render_prompt_uses_the_models_template(channel: grpc.Channel) -> None:
    stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
    rendered = stub.RenderPrompt(pb.RenderPromptRequest(request=question("Hello")), timeout=10)
    assert rendered.prompt.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    assert rendered.prompt_tokens == len(rendered.token_ids)
    assert rendered.prompt_tokens + rendered.remaining_tokens == 2048


def test_watch_status_reports_the_engines_load(channel: grpc.Channel) -> None:
    stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
    watch = stub.WatchStatus(pb.WatchStatusRequest(), timeout=30)
    status = next(iter(watch)).models[0]
    watch.cancel()
    assert (status.model, status.ready) == ("smollm2-135m", True)
    assert status.slots > 0
