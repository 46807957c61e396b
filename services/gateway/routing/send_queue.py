"""The messages that wait to be written to a worker: in order, and only for as long as they are wanted."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb


class SendQueue:
    """Messages of many calls, bounded in bytes because a worker may stop reading and first messages may be large."""

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

    def take_back(self, call: int) -> bool:
        """Take the first message of a call out again; return whether it was still there."""
        return self._messages.pop(call, None) is not None

    async def get(self) -> pb.GenerateManyRequest:
        """Return the next message, when there is one. For one reader."""
        while not self._messages:
            self._filled.clear()
            await self._filled.wait()
        return self._messages.popitem(last=False)[1]
