"""Prompts without answers: POST /tokenize, and what a request with `dry_run` is answered."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import grpc
import orjson
from starlette.requests import Request
from starlette.responses import Response
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dependencies import dependencies, note_model
from services.gateway.dialects.field_names import openai_name
from services.gateway.dialects.ignored_header import ignored_header
from services.gateway.dialects.json_fields import Fields
from services.gateway.dialects.openai_chat.chat_request import ChatRequest, measured, translate
from services.gateway.dialects.openai_chat.stream_fields import ignored_fields
from services.gateway.edge.body import read_json
from services.gateway.errors import JSON, bad_request, from_rpc
from services.gateway.images.image_parts import ImageLimits
from services.gateway.routing.inference_client import InferenceWorker
from services.gateway.tenancy.admission import admit, refuse_early
from services.gateway.tenancy.auth import Caller, recognise
from services.gateway.tenancy.demand import Demand, demand_of


async def tokenize(request: Request) -> Response:
    """Show the token ids of a prompt, or of a conversation in its model's template."""
    gateway = dependencies(request)
    caller = await recognise(request, gateway.keyring)
    strict = request.headers.get("x-strict-params") == "true"
    understand = partial(_understand, limits=gateway.image_limits, refuse_ignored=strict)
    chat, demand = await read_json(
        request,
        understand,
        max_bytes=gateway.settings.max_body_bytes,
        budget=gateway.bodies,
        key_id=caller.key.id,
        before_large=partial(refuse_early, request, caller),
    )
    note_model(request, chat.generate.model)
    answer, _, headers = await _render(request, caller, chat, demand)
    shown = {
        "count": answer.prompt_tokens,
        "max_model_len": answer.prompt_tokens + answer.remaining_tokens,
        "tokens": list(answer.token_ids),
    }
    return Response(orjson.dumps(shown), headers=headers, media_type=JSON)


async def dry_run(request: Request, caller: Caller, chat: ChatRequest, demand: Demand) -> Response:
    """What would become of a request: its prompt, what of it would be ignored, and which worker would answer."""
    answer, worker, headers = await _render(request, caller, chat, demand)
    shown = {
        "object": "chat.completion.dry_run" if chat.text is None else "text_completion.dry_run",
        "model": chat.generate.model,
        "prompt": answer.prompt,
        "prompt_tokens": answer.prompt_tokens,
        "remaining_tokens": answer.remaining_tokens,
        "ignored_parameters": _ignored(chat, answer),
        "worker": worker.address,
    }
    return Response(orjson.dumps(shown), headers=headers, media_type=JSON)


async def _render(
    request: Request, caller: Caller, chat: ChatRequest, demand: Demand
) -> tuple[pb.RenderPromptResponse, InferenceWorker, dict[str, str]]:
    gateway, generate = dependencies(request), chat.generate
    # It counts as a request. Its prompt must fit what the key has left, and is reserved meanwhile, but costs no tokens.
    of_prompt = replace(demand, output=0, max_output=0)
    admission = await admit(request, caller, of_prompt, gateway.workers)
    async with await admission.get() as lease:
        generate.tenant = lease.subject.key.tenant
        await gateway.image_fetcher.fill(chat.images)
        worker = gateway.workers.choose(generate.model)
        try:
            answer = await worker.client.render(generate, request_id=request.state.request_id, size=chat.size)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, request_id=request.state.request_id, form=chat.form) from error
    return answer, worker, {**lease.headers, **ignored_header(_ignored(chat, answer))}


def _ignored(chat: ChatRequest, answer: pb.RenderPromptResponse) -> list[str]:
    return [*chat.ignored, *map(openai_name, answer.ignored_parameters)]


def _understand(body: Any, *, limits: ImageLimits, refuse_ignored: bool) -> tuple[ChatRequest, Demand]:
    chat = _translate(body, limits=limits, refuse_ignored=refuse_ignored)
    return chat, demand_of(chat.generate, reserve_output=0)


def _translate(body: Any, *, limits: ImageLimits, refuse_ignored: bool) -> ChatRequest:
    if isinstance(body, dict) and "messages" in body:
        return measured(translate(body, refuse_ignored=refuse_ignored, image_limits=limits))
    fields = Fields(body)
    generate = pb.GenerateRequest(model=fields.required_string("model"), refuse_ignored_parameters=refuse_ignored)
    prompt = fields.string("prompt")
    if not prompt:
        raise bad_request("prompt", "prompt is missing; send a string as prompt, or messages")
    generate.prompt = prompt
    ignored = ignored_fields(fields, refuse=refuse_ignored)
    chat = ChatRequest(generate, stream=False, include_usage=False, continuous_usage=False, ignored=ignored)
    return measured(chat)
