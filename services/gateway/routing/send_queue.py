"""The queue of messages to a worker, from which the start of a cancelled call can be removed."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb


class SendQueue:
    """Messages of many calls in order.

    Start messages may be large, and a worker may stop reading: those of cancelled calls must not pile up.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._messages: Final[OrderedDict[int, pb.GenerateManyRequest]] = OrderedDict()
        """A call's first message by the call's number, others by negative numbers."""
        self._others: Final = itertools.count(-1, -1)
        self._filled: Final = asyncio.Event()

    def put(self, message: pb.GenerateManyRequest) -> None:
        """Add a message."""
        self._messages[message.call if message.HasField("start") else next(self._others)] = message
        self._filled.set()

    def remove_start(self, call: int) -> bool:
        """Remove the first message of a call. Return whether it was still in the queue."""
        return self._messages.pop(call, None) is not None

    async def get(self) -> pb.GenerateManyRequest:
        """Wait for the next message, and return it. For one reader."""
        while not self._messages:
            self._filled.clear()
            await self._filled.wait()
        return self._messages.popitem(last=False)[1]
