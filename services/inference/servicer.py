"""The inference API. `Generate` is a request's whole way through the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

import grpc
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.failure import Failure, Reason, Violation
from services.grpc_server import refuse, request_id
from services.inference.choice import Choice
from services.inference.engine_status import EngineStatus
from services.inference.generation import Generation, Ready
from services.inference.prompt import render
from services.inference.request_checks import check
from services.inference.served_model import ServedModel
from services.inference.settings import InferenceSettings
from services.inference.usage import UsageCount
from services.triton_client import TritonClient

SERVICE: Final = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
SHORTEST_STATUS_SECONDS: Final = 0.1

Context = grpc.aio.ServicerContext[Any, Any]


class InferenceServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Answers the calls of vilix.inference.v1.InferenceService."""

    def __init__(
        self,
        settings: InferenceSettings,
        models: Mapping[str, ServedModel],
        triton: TritonClient,
        status: EngineStatus,
        draining: Callable[[], bool],
    ) -> None:
        """Serves `models`, by id."""
        self._settings: Final = settings
        self._models: Final = models
        self._triton: Final = triton
        self._status: Final = status
        self._draining: Final = draining

    async def Generate(  # noqa: N802  # the method's name in the proto
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Render the prompt, generate tokens, turn them into text, and stream it as events."""
        try:
            model = self._find(request.model)
            self._check(request, model)
            prompt = await render(request, model)
            usage = UsageCount(prompt)
            choices = [Choice(index, request, model) for index in range(max(1, request.n))]
            async with Generation(self._triton, model, request, prompt) as generation:
                generation.start(request_id(context) or "internal")
                while not all(choice.finished for choice in choices):
                    ready = await generation.ready()
                    events = usage.started() + _answer(ready, choices, generation, usage)
                    if all(choice.finished for choice in choices):
                        events.append(usage.event(choices))
                    if events:
                        yield pb.GenerateResponse(events=events)
        except Exception as error:  # noqa: BLE001  # every end of a call has a status, and it is made in one place
            await refuse(context, error)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """List the models whose engines answer."""
        served = [self._models[model_id] for model_id in sorted(self._models)]
        return pb.ListModelsResponse(models=[model.to_proto() for model in served if model.description is not None])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:  # noqa: N802
        """Describe one model."""
        try:
            return pb.GetModelResponse(model=self._find(request.model).to_proto())
        except Exception as error:  # noqa: BLE001  # as above
            await refuse(context, error)

    async def RenderPrompt(self, request: pb.RenderPromptRequest, context: Context) -> pb.RenderPromptResponse:  # noqa: N802
        """Render a prompt and count its tokens."""
        try:
            model = self._find(request.request.model)
            self._check(request.request, model)
            prompt = await render(request.request, model)
        except Exception as error:  # noqa: BLE001  # as above
            await refuse(context, error)
        return pb.RenderPromptResponse(
            prompt=prompt.text,
            token_ids=prompt.token_ids,
            prompt_tokens=len(prompt.token_ids),
            remaining_tokens=prompt.room,
        )

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncGenerator[pb.WatchStatusResponse, None]:
        """Report the load until the caller hangs up or the worker stops."""
        interval = request.interval.ToMilliseconds() / 1000 if request.HasField("interval") else 1.0
        interval = max(interval, SHORTEST_STATUS_SECONDS)
        while True:
            if interval < self._settings.status_seconds:
                await self._status.refresh()
            yield pb.WatchStatusResponse(models=self._status.states(), draining=self._draining())
            if self._draining():
                return
            await asyncio.sleep(interval)

    def _find(self, model_id: str) -> ServedModel:
        model = self._models.get(model_id)
        if model is None:
            message = f"this worker does not serve {model_id!r}; it serves {', '.join(sorted(self._models))}"
            raise Failure(Reason.MODEL_NOT_FOUND, message, violations=(Violation("model", message, model_id),))
        return model

    def _check(self, request: pb.GenerateRequest, model: ServedModel) -> None:
        if self._draining():
            raise Failure(Reason.DRAINING, "this worker is about to stop; ask another one", retry_after=1.0)
        model.engine()
        check(request, model, max_choices=self._settings.max_choices, max_messages=self._settings.max_messages)


def _answer(ready: list[Ready], choices: list[Choice], generation: Generation, usage: UsageCount) -> list[pb.Event]:
    """The events that follow from what the engine sent."""
    events: list[pb.Event] = []
    for item in ready:
        choice = choices[item.choice]
        if choice.finished:
            continue
        events += choice.feed(item.output)
        usage.note(item.output)
        if choice.finished:
            generation.stop_choice(item.choice)
    return events
