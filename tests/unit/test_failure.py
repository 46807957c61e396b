from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from services.runtime.failure import Failure, Reason, Violation, failure_of

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
        Failure(Reason.MODEL_UNAVAILABLE, "no worker", retry_after=1.5),
        Failure(
            Reason.INVALID_ARGUMENT,
            "دما ۳ است",
            violations=(Violation("sampling.temperature", "is 3", "3", "2"), Violation("n", "is 0")),
        ),
        *(Failure(reason, "message") for reason in Reason),
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
    assert (received.reason, received.message) == (failure.reason, failure.message)
    assert (received.violations, received.retry_after) == (failure.violations, failure.retry_after)


async def test_a_status_without_our_error_info_is_not_a_failure(
    failing: tuple[Failing, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]],
) -> None:
    _, call = failing
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", timeout=10)
    assert failure_of(caught.value) is None
