"""Collects the events of a generation, from which each API makes its response object."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.limit_status import SpentBudget


@dataclass(slots=True)
class ToolCall:
    """A tool call, possibly incomplete."""

    id: str
    name: str
    fragments: list[str] = field(default_factory=list)
    """The parts of its arguments, which are joined once."""

    @property
    def arguments_json(self) -> str:
        """The arguments."""
        return "".join(self.fragments)


@dataclass(slots=True)
class Choice:
    """One choice of a generation."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: dict[int, ToolCall] = field(default_factory=dict)
    """The tool calls by index."""
    logprobs: list[pb.TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[pb.TokenLogprob] = field(default_factory=list)
    finish_reason: pb.FinishReason.ValueType = pb.FINISH_REASON_STOP
    stop_string: str = ""
    """The stop string of the request that ended it, if one did."""

    def add(self, delta: pb.Delta) -> None:
        """Append a delta."""
        match delta.WhichOneof("fragment"):
            case "content":
                self.content.append(delta.content)
            case "reasoning_content":
                self.reasoning.append(delta.reasoning_content)
            case "tool_call":
                part = delta.tool_call
                call = self.tool_calls.setdefault(part.index, ToolCall(part.id, part.name))
                call.fragments.append(part.arguments_json)
        if delta.logprobs:
            self.logprobs.extend(delta.logprobs)
        if delta.prompt_logprobs:
            self.prompt_logprobs.extend(delta.prompt_logprobs)


class ResponseCollector:
    """Collects a generation that is sent when it is complete."""

    def __init__(self, choices: int) -> None:
        """Expect `choices` choices."""
        self._number: Final = choices
        # Choices are created when they are needed, because only the worker knows how many are allowed.
        self._choices: Final = defaultdict[int, Choice](Choice)
        self.usage = pb.Usage()
        self.is_clamped = False
        """Whether the context has limited the number of tokens that the request allowed."""
        self.ended_by: SpentBudget | None = None
        """The budget that ended the generation."""

    @property
    def choices(self) -> list[Choice]:
        """All choices of a complete generation, in order."""
        return [self._choices[index] for index in range(self._number)]

    @property
    def begun(self) -> list[Choice]:
        """The choices that have at least one event, in order."""
        return [choice for _, choice in sorted(self._choices.items())]

    def add_text(self, text: str, *, is_reasoning: bool) -> None:
        """Append a text delta of the choice 0 without log probabilities."""
        choice = self._choices[0]
        if text:
            (choice.reasoning if is_reasoning else choice.content).append(text)

    def add(self, events: Iterable[pb.Event]) -> None:
        """Append events."""
        for event in events:
            match event.WhichOneof("event"):
                case "delta":
                    self._choices[event.delta.index].add(event.delta)
                case "finish":
                    choice = self._choices[event.finish.index]
                    choice.finish_reason, choice.stop_string = event.finish.reason, event.finish.stop_string
                case "started":
                    self.is_clamped = event.started.HasField("max_tokens")
                case "usage":
                    self.usage = event.usage
