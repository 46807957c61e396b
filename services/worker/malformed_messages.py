"""Rejects gRPC messages that are malformed or have too many elements, as a fault of the caller.

By itself, gRPC answers a malformed message with UNKNOWN, as if the fault were the worker's, and
parses any number of elements.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from services.runtime.element_limit import check_elements
from services.runtime.failure import Failure, invalid
from services.runtime.messages.message import Message

Context = grpc.aio.ServicerContext[Any, Any]


_MALFORMED: Final = invalid(Message("message_not_valid"))


class MalformedMessages(grpc.aio.ServerInterceptor):
    """Answers a call whose message is malformed, or has too many elements, with INVALID_ARGUMENT."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler of a call, wrapped so that it never receives such a message."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        codec = (_tolerant(handler.request_deserializer), handler.response_serializer)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(_once(handler.unary_unary), *codec)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(_stream(handler.unary_stream), *codec)
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(_both_streams(handler.stream_stream), *codec)
        return handler


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a parser that returns, in place of a message, the Failure with which the call is to end.

    gRPC parses a message before it calls the handler, which alone can end the call with a status.
    """
    kind = getattr(parse, "__self__").DESCRIPTOR  # noqa: B009  # the method is one of the message's class

    def parse_or_fail(data: bytes) -> Any:
        try:
            check_elements(data, kind)
            return parse(data)
        except Failure as failure:
            return failure
        except DecodeError:
            return _MALFORMED

    return parse_or_fail


def _once(behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        await _check(request, context)
        return await behaviour(request, context)

    return call


def _stream(behaviour: Callable[[Any, Context], Any]) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        await _check(request, context)
        async with contextlib.aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                yield response

    return call


def _both_streams(behaviour: Callable[[Any, Context], Any]) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def call(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async def checked() -> AsyncIterator[Any]:
            async for request in requests:
                await _check(request, context)
                yield request

        async with contextlib.aclosing(behaviour(checked(), context)) as responses:
            async for response in responses:
                yield response

    return call


async def _check(request: Any, context: Context) -> None:
    if isinstance(request, Failure):
        await context.abort_with_status(request.status())
