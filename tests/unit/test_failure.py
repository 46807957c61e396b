from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from services.runtime.failure import Failure, Reason, failure_of, from_proto
from services.runtime.messages.message import VERBATIM, Message

METHOD = "/test.Service/Fail"


class Failing(grpc.GenericRpcHandler):
    """Ends every call with `failure`."""

    def __init__(self) -> None:
        self.failure: Failure | None = None

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self._fail)

    async def _fail(self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if self.failure is None:
            await context.abort(grpc.StatusCode.INTERNAL, "not one of ours")
        await context.abort_with_status(self.failure.status())  # type: ignore[attr-defined]  # its types miss it
        return b""


@pytest.fixture
async def failing() -> AsyncIterator[tuple[Failing, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]]]:
    server, handler = grpc.aio.server(), Failing()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield handler, channel.unary_unary(METHOD)
    await server.stop(None)


@pytest.mark.parametrize(
    "failure",
    [
        Failure(Reason.MODEL_UNAVAILABLE, Message("model_unavailable", model="m"), retry_after=1.5),
        Failure(Reason.INVALID_ARGUMENT, Message("out_of_range", field="sampling.دما", value=3, least=0, most=2.5)),
        *(Failure(reason, Message("model_unavailable", model=reason)) for reason in Reason),
    ],
    ids=lambda failure: failure.reason,
)
async def test_a_failure_survives_the_wire(
    failing: tuple[Failing, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]], failure: Failure
) -> None:
    handler, call = failing
    handler.failure = failure
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", timeout=10)
    received = failure_of(caught.value)
    assert received is not None
    assert caught.value.code() is failure.code
    assert (received.reason, str(received)) == (failure.reason, str(failure))
    assert received.retry_after == failure.retry_after


def test_a_status_has_the_english_text_and_the_parameters_of_a_translation() -> None:
    message = Message("out_of_range", field="n", value=3, least=0, most=2)
    status = Failure(Reason.INVALID_ARGUMENT, message).to_proto()
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert (status.details[0].Unpack(info), status.details[1].Unpack(bad_request)) == (True, True)
    assert status.message == str(message)
    assert dict(info.metadata) == {"message_id": "out_of_range", "field": "n", "value": "3", "least": "0", "most": "2"}
    assert [(one.field, one.description) for one in bad_request.field_violations] == [("n", str(message))]


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({"field": "n"}, id="an older program, which sends no id"),
        pytest.param({"field": "n", "message_id": "of_tomorrow"}, id="a newer program with a new id"),
        pytest.param({"field": "n", "message_id": "out_of_range"}, id="a program with fewer parameters"),
    ],
)
def test_an_unknown_message_keeps_the_text_that_was_sent(metadata: dict[str, str]) -> None:
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason="INVALID_ARGUMENT", domain="vilix", metadata=metadata))
    failure = from_proto(status_pb2.Status(code=3, message="n is too large", details=[info]))
    assert failure is not None
    assert (failure.message.id, str(failure), failure.message.field) == (VERBATIM, "n is too large", "n")


async def test_a_status_without_our_error_info_is_not_a_failure(
    failing: tuple[Failing, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]],
) -> None:
    _, call = failing
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", timeout=10)
    assert failure_of(caught.value) is None
