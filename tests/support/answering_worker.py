"""A stand-in for an inference worker that answers like a small model, for clients that need an answer to the point."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb

from tests.support.scripted_worker import ScriptedWorker, content, finish, reasoning, started, usage

ANSWERING_MODEL = "gpt-5-stand-in"
"""The model's id: suites try reasoning only with models of such names."""
ARGUMENT = "تهران"
"""The value of every argument, and of every string of structured output."""


class AnsweringWorker(ScriptedWorker):
    """Calls the first function that it may call, fills schemas, and otherwise repeats the last message.

    It reasons if the request sets an effort: the names of events with reasoning differ between clients and suites.
    """

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        listed = await super().ListModels(request, context)
        listed.models[0].id = ANSWERING_MODEL
        return listed

    async def generate(self, request: pb.GenerateRequest, request_id: str) -> AsyncGenerator[list[pb.Event], None]:
        self.requests.append(request)
        last = request.messages[-1]
        text = "".join(part.text for part in last.content)
        does_reason = request.reasoning.effort != pb.REASONING_EFFORT_UNSPECIFIED
        yield [started(), *([reasoning("فکر")] if does_reason else [])]
        may_call = request.tools and request.tool_choice.mode != pb.TOOL_CHOICE_MODE_NONE
        if may_call and last.role != pb.ROLE_TOOL:
            tool = request.tools[0]
            arguments = json.dumps(filled(json.loads(tool.parameters_json or "{}")), ensure_ascii=False)
            fragment = pb.ToolCallFragment(id=f"call_{request_id}", name=tool.name, arguments_json=arguments)
            yield [pb.Event(delta=pb.Delta(tool_call=fragment, token_count=1))]
            yield [finish(pb.FINISH_REASON_TOOL_CALLS), usage()]
            return
        if request.response_format.HasField("json_schema"):
            answer = json.dumps(filled(json.loads(request.response_format.json_schema.schema_json)))
        else:
            answer = f"echo: {text}"
        for word in answer.split(" "):
            yield [content(word if word == answer.split(" ")[0] else f" {word}")]
        yield [finish(), usage()]


def filled(schema: dict[str, Any]) -> Any:
    """Return a value of a simple schema."""
    match schema.get("type"):
        case "object":
            return {name: filled(inner) for name, inner in schema.get("properties", {}).items()}
        case "array":
            return []
        case "integer" | "number":
            return 1
        case "boolean":
            return True
    return schema["enum"][0] if "enum" in schema else ARGUMENT
