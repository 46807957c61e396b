"""The message to a caller with what is ready for any of its calls: text in columns, and all other outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.worker.grpc_server import MAX_MESSAGE_BYTES

MOST_RESPONSE_BYTES: Final = MAX_MESSAGE_BYTES - 64 * 1024
"""A larger message would end the stream, and with it all calls."""
MOST_TEXT: Final = 4 * 2**20
"""The most characters of text in columns, and bytes of outputs beside them. A character has at most four bytes."""


class StepMessage:
    """Outputs that are sent together."""

    def __init__(self) -> None:
        """Start without outputs."""
        self._outputs: Final[list[pb.CallOutput]] = []
        self._contents: Final = _Column()
        self._reasoning: Final = _Column()
        self._length = 0
        self._with_content: Final[set[int]] = set()
        self._with_output: Final[set[int]] = set()

    def __bool__(self) -> bool:
        """Return whether there is anything to send."""
        return bool(self._outputs or self._contents.deltas or self._reasoning.deltas)

    def put(self, output: pb.CallOutput) -> None:
        """Add an output."""
        self._outputs.append(output)
        self._with_output.add(output.call)

    def put_text(self, call: int, text: str, tokens: int, *, is_reasoning: bool) -> bool:
        """Add a text delta in a column, if it can be read in order there. Return whether it was added."""
        self._length += len(text)
        if call in self._with_output or self._length > MOST_TEXT:
            return False
        if not is_reasoning:
            self._contents.deltas.append((call, text, tokens))
            self._with_content.add(call)
        elif call in self._with_content:
            return False
        else:
            self._reasoning.deltas.append((call, text, tokens))
        return True

    def responses(self) -> Iterator[pb.GenerateManyResponse]:
        """Yield the messages to send: few, and none of them too large."""
        if self._contents.deltas or self._reasoning.deltas:
            response = pb.GenerateManyResponse(
                contents=self._contents.to_proto(), reasoning_contents=self._reasoning.to_proto()
            )
            if sum(output.ByteSize() for output in self._outputs) <= MOST_TEXT:
                response.outputs.extend(self._outputs)
                yield response
                return
            yield response
        if self._outputs:
            yield from responses_of(self._outputs)


class _Column:
    """Text deltas of one kind."""

    def __init__(self) -> None:
        self.deltas: Final[list[tuple[int, str, int]]] = []
        """Call, text and number of tokens of each delta."""

    def to_proto(self) -> pb.TextDeltas | None:
        """Return the message, or None without deltas."""
        if not self.deltas:
            return None
        calls, texts, token_counts = zip(*self.deltas, strict=True)
        return pb.TextDeltas(calls=calls, texts=texts, token_counts=token_counts)


def text_event(text: str, tokens: int, *, is_reasoning: bool) -> pb.Event:
    """Return the event of a text delta of the choice 0."""
    if not text:
        return pb.Event(delta=pb.Delta(token_count=tokens))
    if is_reasoning:
        return pb.Event(delta=pb.Delta(reasoning_content=text, token_count=tokens))
    return pb.Event(delta=pb.Delta(content=text, token_count=tokens))


def responses_of(outputs: list[pb.CallOutput]) -> Iterator[pb.GenerateManyResponse]:
    """Yield `outputs` in as few messages as possible. A too large output is replaced by an error status."""
    response = pb.GenerateManyResponse(outputs=outputs)
    if response.ByteSize() <= MOST_RESPONSE_BYTES:
        yield response
    elif len(outputs) > 1:
        half = len(outputs) // 2
        yield from responses_of(outputs[:half])
        yield from responses_of(outputs[half:])
    else:
        size = outputs[0].ByteSize()
        failure = Failure(Reason.INTERNAL, Message("answer_part_too_large", value=size, limit=MOST_RESPONSE_BYTES))
        status = failure.to_proto().SerializeToString()
        yield pb.GenerateManyResponse(outputs=[pb.CallOutput(call=outputs[0].call, status=status)])
