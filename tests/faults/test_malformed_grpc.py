"""Malformed input on the workers' gRPC ports causes no status of an internal error, and the workers survive."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from vilix.embeddings.v1 import embeddings_service_pb2 as embeddings_pb
from vilix.inference.v1 import inference_service_pb2 as pb

from tests.faults.chat_stream import MODEL
from tests.faults.everything import Everything
from tests.faults.malformed import CASES, at_once, capable_system, exchange, tally, unharmed, without_growth
from tests.faults.mutation import HOSTILE, mutated
from tests.support.fault_table import record, times
from tests.support.triton_servers import EMBEDDING_MODEL

pytestmark = pytest.mark.timeout(times(300, 1800))

GENERATE: Final = pb.GenerateRequest(
    model=MODEL,
    messages=[
        pb.Message(role=pb.ROLE_SYSTEM, content=[pb.ContentPart(text="Be brief.")]),
        pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="سلام"), pb.ContentPart(text="b")], name="u"),
        pb.Message(
            role=pb.ROLE_ASSISTANT,
            reasoning_content="thought",
            tool_calls=[pb.ToolCall(id="c", name="f", arguments_json='{"a": [1, {}]}')],
        ),
        pb.Message(role=pb.ROLE_TOOL, tool_call_id="c", content=[pb.ContentPart(text="result")]),
    ],
    tools=[pb.Tool(name="f", description="d", parameters_json='{"type": "object"}', strict=True)],
    tool_choice=pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_AUTO),
    sampling=pb.SamplingParams(max_tokens=20, temperature=0.5, seed=1, stop=["x"], stop_token_ids=[1], top_k=5),
    n=2,
    tenant="t",
    priority=1,
    chat_template_kwargs={"enable_thinking": False, "a": [1, {"b": None}]},
    reasoning=pb.ReasoningOptions(enabled=True, effort=pb.REASONING_EFFORT_LOW),
)
_INFERENCE: Final = "/vilix.inference.v1.InferenceService/"
_EMBEDDINGS: Final = "/vilix.embeddings.v1.EmbeddingsService/"
CALLS: Final[tuple[tuple[str, Any], ...]] = (
    (f"{_INFERENCE}Generate", GENERATE),
    (f"{_INFERENCE}Generate", pb.GenerateRequest(model=MODEL, prompt="one two", n=1)),
    (f"{_INFERENCE}Generate", pb.GenerateRequest(model=MODEL, prompt_token_ids=[1, 2, 3])),
    (
        f"{_INFERENCE}GenerateMany",
        pb.GenerateManyRequest(
            call=1, start=pb.StartCall(request=GENERATE, request_id="r", timeout={"seconds": 20}, credit=1000)
        ),
    ),
    (f"{_INFERENCE}RenderPrompt", pb.RenderPromptRequest(request=GENERATE)),
    (f"{_INFERENCE}GetModel", pb.GetModelRequest(model=MODEL)),
    (f"{_INFERENCE}ListModels", pb.ListModelsRequest()),
    (
        f"{_EMBEDDINGS}Embed",
        embeddings_pb.EmbedRequest(
            model=EMBEDDING_MODEL,
            texts=["one", "دو"],
            dimensions=384,
            truncate=True,
            input_type=embeddings_pb.INPUT_TYPE_QUERY,
        ),
    ),
    (
        f"{_EMBEDDINGS}Embed",
        embeddings_pb.EmbedRequest(model=EMBEDDING_MODEL, token_ids=[embeddings_pb.TokenIds(ids=[1, 2, 2**32 - 1])]),
    ),
    (f"{_EMBEDDINGS}ListModels", embeddings_pb.ListModelsRequest()),
    ("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest(service=MODEL)),
    *(
        (
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest(file_by_filename="a", list_services="*"),
        )
        for version in ("v1", "v1alpha")
    ),
)
# The statuses of callers' errors and of valid requests. UNKNOWN and INTERNAL would be errors of the workers.
EXPECTED: Final = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "CANCELLED", "DEADLINE_EXCEEDED"}


def ends_in(response: bytes) -> set[str]:
    """Return the status codes of the calls that a message ends."""
    outputs = pb.GenerateManyResponse.FromString(response).outputs
    ended = [status_pb2.Status.FromString(output.status) for output in outputs if output.HasField("status")]
    return {next(code.name for code in grpc.StatusCode if code.value[0] == status.code) for status in ended}


@pytest.fixture(scope="module")
async def everything(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Everything]:
    async with capable_system(tmp_path_factory.mktemp("malformed")) as running:
        yield running


@pytest.fixture(autouse=True)
async def no_harm(everything: Everything) -> AsyncIterator[None]:
    async with unharmed(everything):
        yield


async def test_grpc_calls_with_mutated_messages_cause_no_internal_error(everything: Everything) -> None:
    random = Random(2)
    valid = [message.SerializeToString() or b"\0" for _, message in CALLS]
    targets = {_EMBEDDINGS: everything.embedder.target}
    seen: Counter[str] = Counter()
    channels = {
        target: grpc.aio.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])
        for target in (everything.system.worker.address, everything.embedder.target)
    }

    async def one() -> None:
        method, message = random.choice(CALLS)
        content = (
            mutated(random, message.SerializeToString(), valid)
            if random.random() < 0.7
            else with_wrong_values(random, message)
        )
        target = next(
            (t for prefix, t in targets.items() if method.startswith(prefix)), everything.system.worker.address
        )
        metadata = random.choice(
            ((), (("x-request-id", "a" * 5000),), (("x-request-id", "%s %00 ~"), ("b-bin", b"\xff")))
        )
        call: Any = channels[target].stream_stream(method)
        running = call(iter([content]), timeout=20, metadata=metadata)
        codes: set[str] = set()
        try:
            async for response in running:
                codes |= ends_in(response) if method.endswith("GenerateMany") else set()
        except grpc.aio.AioRpcError as error:
            code, details = error.code().name, error.details() or ""
        else:
            code, details = "OK", ""
        seen[code] += 1
        assert {code, *codes} <= EXPECTED, (code, codes, details, method, content)
        assert "Traceback" not in details

    try:
        grown = await without_growth(everything, at_once(one))
    finally:
        for channel in channels.values():
            await channel.close()
    assert {"OK", "INVALID_ARGUMENT"} <= set(seen)
    record(
        "Malformed input: gRPC calls with malformed protobufs",
        "neither UNKNOWN nor INTERNAL",
        f"{tally(seen)}; {grown}",
        met=True,
    )


async def test_workers_survive_malformed_http2(everything: Everything) -> None:
    random = Random(3)
    addresses = (everything.system.worker.address, everything.embedder.target)
    valid = [http2_call(method, message.SerializeToString()) for method, message in CALLS]

    async def one() -> None:
        content = mutated(random, random.choice(valid), valid)
        response = await exchange(random.choice(addresses), [content], seconds=0.2)
        assert b"Traceback" not in response

    grown = await without_growth(everything, at_once(one))
    record(
        "Malformed input: malformed HTTP/2 on the gRPC ports",
        "the workers survive",
        f"{CASES} connections; {grown}",
        met=True,
    )


def with_wrong_values(random: Random, message: Message) -> bytes:
    """Serialize the message with wrong values in one to three of its fields or of its parts' fields."""
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(random.randint(1, 3)):
        part = random.choice(_parts(changed))
        field = random.choice(part.DESCRIPTOR.fields or [None])
        if field is None or field.message_type is not None:
            continue
        value = _wrong_value(random, field)
        if field.is_repeated:
            getattr(part, field.name).extend([value] * random.choice((1, 100)))
        else:
            setattr(part, field.name, value)
    return changed.SerializeToString()


def _parts(message: Message) -> list[Message]:
    parts = [message]
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for one in value if field.is_repeated else [value]:
            parts += _parts(one)
    return parts


def _wrong_value(random: Random, field: FieldDescriptor) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return random.randbytes(random.choice((0, 1, 1000)))
        case FieldDescriptor.CPPTYPE_STRING:
            # A protobuf string cannot contain half of a surrogate pair; mutations of bytes cover that case.
            values = [value for make in HOSTILE if isinstance(value := make(), str)]
            texts = [value for value in values if not any("\ud800" <= letter <= "\udfff" for letter in value)]
            return random.choice([*texts, "[" * 3000, '{"a":' * 3000, "{", "[1e999]", '{"a": NaN}', '"\\ud800"'])
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return random.choice((float("nan"), float("inf"), float("-inf"), -0.0, 1e38, -1.0))
        case FieldDescriptor.CPPTYPE_BOOL:
            return random.random() < 0.5
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            return random.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1))
        case _:
            return random.choice((0, -1, 1, 99, 2**31 - 1, -(2**31)))


def http2_call(method: str, message: bytes) -> bytes:
    """Return a complete gRPC call as the bytes of an HTTP/2 connection (RFC 9113, with literal headers of RFC 7541)."""
    fields = ((":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "test"))
    others = (("te", "trailers"), ("content-type", "application/grpc"), ("grpc-timeout", "1S"))
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in (*fields, *others))
    content = b"\0" + len(message).to_bytes(4, "big") + message
    frames = _frame(4, 0, 0, b"") + _frame(1, 4, 1, block) + _frame(0, 1, 1, content) + _frame(6, 0, 0, bytes(8))
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frames


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
