"""The inference API. `generate` is the whole path of a request through the worker."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.inference.call_demultiplexer import CallDemultiplexer
from services.inference.generation.choice import Choice
from services.inference.generation.generation import Generation, Timeouts
from services.inference.generation.usage import UsageCount
from services.inference.model.engine_status import EngineStatus
from services.inference.model.served_model import ServedModel
from services.inference.outlet import Outlet
from services.inference.request.prompt import Prompt, clamped_max_tokens, render
from services.inference.request.prompts import render_all
from services.inference.request.request_checks import RequestLimits, check, ignored_parameters
from services.inference.token_path import TokenPath
from services.runtime.failure import Failure
from services.worker.grpc_server import Context, WorkerServer, note_caller, reject, request_id
from services.worker.offload import run_in_thread_if_large
from services.worker.servicer import WorkerServicer
from services.worker.triton_client import TritonClient

SERVICE: Final = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name


class InferenceServicer(WorkerServicer[ServedModel], inference_service_pb2_grpc.InferenceServiceServicer):
    """Answers the calls of vilix.inference.v1.InferenceService."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        tritons: Mapping[str, TritonClient],
        status: EngineStatus,
        *,
        limits: RequestLimits,
        timeouts: Timeouts,
        server: WorkerServer,
    ) -> None:
        """Serve `models`, by id, with `tritons`, by model id. `server` reports when the worker is about to stop."""
        super().__init__(models, server)
        self._tritons: Final = tritons
        self._status: Final = status
        self._limits: Final = limits
        self._timeouts: Final = timeouts

    async def Generate(  # noqa: N802  # the method's name in the proto
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Generate the choices of one request, and stream their events."""
        call_id = request_id(context)
        if self._tracer is not None:
            note_caller(context)
        try:
            async with contextlib.aclosing(self.generate(request, call_id)) as generation:
                async for events in generation:
                    yield pb.GenerateResponse(events=events)
        except Exception as error:  # noqa: BLE001  # every error becomes a status, which is made in one place
            await reject(context, error, request_id=call_id)

    async def GenerateMany(  # noqa: N802
        self, requests: AsyncIterator[pb.GenerateManyRequest], context: Context
    ) -> AsyncGenerator[pb.GenerateManyResponse, None]:
        """Generate for many calls, and stream their events together."""
        calls = CallDemultiplexer(self.generate, self._server.drain)
        try:
            async with contextlib.aclosing(calls.responses(requests)) as responses:
                async for response in responses:
                    yield response
        except Failure as failure:
            await reject(context, failure)

    async def generate(
        self, request: pb.GenerateRequest, call_id: str, outlet: Outlet | None = None
    ) -> AsyncGenerator[list[pb.Event], None]:
        """Render the prompt, generate tokens, detokenize them, parse the text, and yield the events as they are ready.

        An empty list is a heartbeat. While the reader waits for the next events, tokens take the shorter way to
        `outlet`, if there is one: see TokenPath. Raises Failure.
        """
        model_id = request.model if request.model in self._models else "unknown"
        with UsageCount(call_id, model_id, request=request, tracer=self._tracer) as usage:
            # Check: the request's limits, and what the model and its engine support.
            model = await run_in_thread_if_large(request, lambda: self._checked_model(request))
            ignored = ignored_parameters(request, model)
            # Render: template → text → token ids.
            prompts = await render_all(request, model)
            usage.note_rendered()
            choices = await run_in_thread_if_large(request, lambda: _choices(request, model, prompts))
            # Generate: one stream of Triton for each choice. `outputs` are those that are ready, by choice.
            triton = self._tritons[model.id]
            generation = Generation(triton, model, request, prompts, request_id=call_id, timeouts=self._timeouts)
            if outlet is not None and not request.prefill_only:
                paths = [TokenPath(choice, generation, usage, outlet) for choice in choices]
                generation.offer_tokens_to(dict(enumerate(paths)))
            async with generation:
                async for outputs in generation.outputs():
                    if not outputs and generation.running:
                        yield []
                        continue
                    for index, output in outputs.items():
                        usage.note(output, prompt=index // max(1, request.n), is_sent=not request.prefill_only)
                    most = clamped_max_tokens(request, prompts[0])
                    events = usage.take_started_event(prompts, ignored, max_tokens=most)
                    for index, received in outputs.items():
                        choice = choices[index]
                        output = received.without_tokens() if request.prefill_only else received
                        # Detokenize: ids → text.
                        texts = choice.detokenize(output)
                        # Parse: text → reasoning, content and tool calls.
                        segments = choice.parse(texts, at_end=output.finish_reason is not None)
                        events += choice.events(output, texts, segments)
                        if choice.stopped:
                            # The text has ended, for example at a stop string, which the engine does not know.
                            generation.stop(index)
                    if not generation.running:
                        events.append(usage.event(choices, model))
                    # Send: what is ready goes together.
                    yield events

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """List the models whose engines answer."""
        return pb.ListModelsResponse(models=[model.to_proto() for model in self._available()])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:  # noqa: N802
        """Describe one model."""
        try:
            return pb.GetModelResponse(model=self._find(request.model).to_proto())
        except Exception as error:  # noqa: BLE001  # as above
            await reject(context, error, request_id=request_id(context))

    async def RenderPrompt(  # noqa: N802
        self, request: pb.RenderPromptRequest, context: Context
    ) -> pb.RenderPromptResponse:
        """Render a prompt and count its tokens."""
        try:
            model = await run_in_thread_if_large(request.request, lambda: self._checked_model(request.request))
            prompt = await render(request.request, model)
        except Exception as error:  # noqa: BLE001  # as above
            await reject(context, error, request_id=request_id(context))
        return pb.RenderPromptResponse(
            prompt=prompt.text,
            token_ids=prompt.token_ids,
            prompt_tokens=prompt.token_count,
            remaining_tokens=prompt.remaining_tokens,
            ignored_parameters=ignored_parameters(request.request, model),
        )

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncGenerator[pb.WatchStatusResponse, None]:
        """Report the load until the caller cancels the call or the worker stops."""
        interval = await self._interval(request, context)
        with self._status.watched(interval):
            async for draining in self._reports(interval):
                yield pb.WatchStatusResponse(models=[model.state for model in self._served], draining=draining)

    def _checked_model(self, request: pb.GenerateRequest) -> ServedModel:
        """Return the model of a valid request. Raises Failure for an invalid one."""
        model = self._find(request.model)
        check(request, model, self._limits)
        return model


def _choices(request: pb.GenerateRequest, model: ServedModel, prompts: Sequence[Prompt]) -> list[Choice]:
    n = max(1, request.n)
    return [Choice(index, request, model, prompts[index // n]) for index in range(n * len(prompts))]
