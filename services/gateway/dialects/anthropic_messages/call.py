"""A call of Anthropic's Messages API, and Anthropic's names of the worker's fields."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import GenerateCall
from services.gateway.dialects.ignored_fields import ignored_header

CLAMPED_HEADER: Final = "x-clamped-params"
"""The header that names `max_tokens` and the number to which the model's context has limited it."""
OMITTED_HEADER: Final = "x-omitted-blocks"
"""The header that names the content blocks that are deliberately not part of the prompt."""
_NAMES: Final = (
    (re.compile(r"^sampling\.stop\b"), "stop_sequences"),
    (re.compile(r"^sampling\."), ""),
    (re.compile(r"^reasoning\.budget_tokens$"), "thinking.budget_tokens"),
    (re.compile(r"^reasoning\.effort$"), "output_config.effort"),
    (re.compile(r"^reasoning\.\w+$"), "thinking"),
    (re.compile(r"^tool_choice\.function_names$"), "tool_choice.name"),
    (re.compile(r"^tool_choice\.mode$"), "tool_choice.type"),
    (re.compile(r"^parallel_tool_calls$"), "tool_choice.disable_parallel_tool_use"),
    (re.compile(r"^response_format\.json_schema\.schema_json"), "output_config.format.schema"),
    (re.compile(r"^response_format"), "output_config.format"),
    (re.compile(r"^(tools\[\d+\])\.parameters_json"), r"\1.input_schema"),
    (re.compile(r"^continue_final_message$"), "messages"),
)
_MESSAGE: Final = re.compile(r"^messages\[(\d+)\](?:\.(?:content|tool_calls)(?:\[(\d+)\])?)?(?P<rest>.*)$")
_TOOL: Final = re.compile(r"^tools\[(\d+)\]")


class Origin(NamedTuple):
    """The origin of a worker's message."""

    path: str
    """The path of the request's field."""
    images: dict[int, str]
    """The paths of its images, by the number of the part."""


@dataclass(frozen=True, kw_only=True)
class MessagesCall(GenerateCall):
    """A call with what its responses need."""

    origins: tuple[Origin, ...] = ()
    """The origin of each of the worker's messages."""
    tools: tuple[int, ...] = ()
    """The index in the request of each of the worker's tools."""
    tenant: str = ""
    """The tenant to whom thinking is signed."""
    hides_thinking: bool = False
    """Whether thinking is sent as its signature only."""
    sets_thinking: bool = False
    """Whether the request has the field `thinking`."""
    prefill_only: bool = False
    """Whether the prompt is read into the cache, and nothing generated."""
    omitted: str = ""
    """The path of a block that is not part of the prompt."""

    def field_name(self, field: str) -> str:
        """Return Anthropic's name for the path of a worker's field."""
        if found := _MESSAGE.match(field):
            return self._message_field(int(found[1]), found[2], field)
        if (found := _TOOL.match(field)) and int(found[1]) < len(self.tools):
            field = f"tools[{self.tools[int(found[1])]}]{field[found.end() :]}"
        for pattern, name in _NAMES:
            field = pattern.sub(name, field)
        return field

    def _message_field(self, index: int, part: str | None, field: str) -> str:
        if index >= len(self.origins):
            return field
        path, images = self.origins[index]
        return images.get(int(part), path) if part else path

    def all_ignored(self, of_worker: Iterable[str]) -> list[str]:
        """Return Anthropic's names of all fields that have no effect."""
        fields = [field for field in of_worker if self.sets_thinking or field != "reasoning.enabled"]
        return list(dict.fromkeys(super().all_ignored(fields)))

    def reports(self, started: pb.Started | None) -> dict[str, str]:
        """Return the headers about what was ignored, limited or left out."""
        headers = ignored_header(self.all_ignored(started.ignored_parameters if started is not None else ()))
        if started is not None and started.HasField("max_tokens"):
            headers[CLAMPED_HEADER] = f"max_tokens={started.max_tokens}"
        if self.omitted:
            headers[OMITTED_HEADER] = self.omitted
        return headers
