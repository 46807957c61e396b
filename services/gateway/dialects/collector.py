"""Collects a worker's events into a whole answer, from which each API makes its own object."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.limit_status import SpentBudget


@dataclass(slots=True)
class ToolCall:
    """A tool call as far as it has come."""

    id: str
    name: str
    arguments_json: str = ""


@dataclass(slots=True)
class Choice:
    """One of the answers to a prompt."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: dict[int, ToolCall] = field(default_factory=dict)
    """By their index."""
    logprobs: list[pb.TokenLogprob] = field(default_factory=list)
    finish_reason: pb.FinishReason.ValueType = pb.FINISH_REASON_STOP

    def add(self, delta: pb.Delta) -> None:
        """Append what a worker has generated."""
        match delta.WhichOneof("fragment"):
            case "content":
                self.content.append(delta.content)
            case "reasoning_content":
                self.reasoning.append(delta.reasoning_content)
            case "tool_call":
                part = delta.tool_call
                call = self.tool_calls.setdefault(part.index, ToolCall(part.id, part.name))
                call.arguments_json += part.arguments_json
        self.logprobs.extend(delta.logprobs)


class ResponseCollector:
    """Puts an answer together before it is sent."""

    def __init__(self, choices: int) -> None:
        """`choices` is how many answers are generated."""
        self._number: Final = choices
        # Made when they are needed: only the worker knows how many there may be.
        self._choices: Final = defaultdict[int, Choice](Choice)
        self.usage = pb.Usage()
        self.ended_by: SpentBudget | None = None
        """The budget that ended the answer."""

    @property
    def choices(self) -> list[Choice]:
        """All choices of a complete answer, in order."""
        return [self._choices[index] for index in range(self._number)]

    @property
    def begun(self) -> list[Choice]:
        """The choices of which something has come, in order."""
        return [choice for _, choice in sorted(self._choices.items())]

    def add(self, events: Iterable[pb.Event]) -> None:
        """Append events."""
        for event in events:
            match event.WhichOneof("event"):
                case "delta":
                    self._choices[event.delta.index].add(event.delta)
                case "finish":
                    self._choices[event.finish.index].finish_reason = event.finish.reason
                case "usage":
                    self.usage = event.usage
