"""An answer that a worker is giving: opened on one worker, and ended exactly once, however it ends."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
from starlette.requests import Request
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway import metrics
from services.gateway.dependencies import dependencies
from services.gateway.dialects.field_names import openai_name
from services.gateway.dialects.openai_chat.chat_request import ChatRequest, without_prompt
from services.gateway.dialects.openai_chat.transcript import Transcript
from services.gateway.edge.body_budget import release_body
from services.gateway.edge.hang_up import ClientGoneError, HangUp
from services.gateway.errors import ApiError, from_failure, restarting, server_error, silent
from services.gateway.routing.generate_stream import CallCancelledError, GenerateCall, SilentWorkerError, Take, Write
from services.gateway.routing.inference_client import InferenceWorker, InferenceWorkers
from services.gateway.tenancy.lease import Lease
from services.gateway.tenancy.limits import SpentBudget
from services.runtime.failure import Failure, Reason


class Answer:
    """An open answer. `events` may be read once; `close` must be called."""

    def __init__(
        self,
        request: Request,
        chat: ChatRequest,
        lease: Lease,
        *,
        worker: InferenceWorker,
        call: GenerateCall,
        hang_up: HangUp,
    ) -> None:
        """Of a call that was begun on `worker`, for a request that holds `lease`."""
        self.id: Final = f"{'chatcmpl' if chat.text is None else 'cmpl'}-{secrets.token_hex(12)}"
        self.chat = chat
        self.created: Final = int(time.time())
        self._request_id: Final[str] = request.state.request_id
        self._log: Final[dict[str, Any]] = request.state.log
        self._lease: Final = lease
        self._worker: Final = worker
        self._call: Final = call
        self._hang_up: Final = hang_up
        self._began: Final = time.perf_counter()
        self._last_tokens: float | None = None
        self._first_is_noted = False
        """Whether the group that is read next was noted when it came."""
        self._model: Final = chat.generate.model
        self._outcome = "stopped"
        self.ended_by: SpentBudget | None = None
        """The budget that ended the answer."""
        self._began_events = False
        self._finished: Final[set[int]] = set()
        settings = dependencies(request).settings
        self._transcript: Final = Transcript(chat) if settings.log_content else None
        worker.in_flight += 1
        metrics.ANSWERS_IN_FLIGHT.labels(self._model).inc()
        self._gaps: Final = metrics.INTER_TOKEN_SECONDS.labels(self._model)

    @property
    def ignored_parameters(self) -> list[str]:
        """Fields of the request that had no influence."""
        started = self._call.started
        return [*self.chat.ignored, *map(openai_name, started.ignored_parameters if started else ())]

    async def begin(self, *, seconds: float | None) -> bool:
        """Wait for the beginning, up to `seconds`; whether it came.

        Raises Failure, ClientGoneError, and ApiError when the worker is silent.
        """
        try:
            began = await self._call.start(seconds=seconds)
        except CallCancelledError:
            raise self._client_gone() from None
        except asyncio.CancelledError:
            self._outcome = "drained"
            raise
        except SilentWorkerError:
            raise self._silent() from None
        except Failure as failure:
            self._outcome = f"broken off: {failure.code.name}"
            raise
        if began:
            self._note_tokens()
            self._first_is_noted = True
        return began

    async def events(self) -> AsyncIterator[list[pb.Event]]:
        """The events, as they come.

        Raises ApiError when the answer breaks off, ClientGoneError when nobody waits for it any more.
        """
        complete = False
        self._lease.ends_answer_with(self._call.cancel)
        try:
            async for events in self._call:
                self._note(events)
                if events[-1].HasField("usage"):
                    complete = True
                    self._complete(events[-1].usage)
                    # Before the client can know that it is over, and come back for the same slot.
                    await self._lease.settle(self._outcome)
                yield events
        except CallCancelledError:
            if self._lease.spent is None or self._hang_up.happened:
                raise self._client_gone() from None
            events = self._end_by_budget(self._lease.spent)
            await self._lease.settle(self._outcome)
            yield events
            return
        except asyncio.CancelledError:
            # The time that this gateway has left has ended.
            self._outcome = "drained"
            raise restarting() from None
        except SilentWorkerError:
            raise self._silent() from None
        except Failure as failure:
            self._outcome = f"broken off: {failure.code.name}"
            raise from_failure(failure, request_id=self._request_id, form=self.chat.form) from failure
        if not complete:
            # A worker that ends in the middle must not look like an answer that is complete.
            self._outcome = "broken off"
            raise server_error(self._request_id)

    def _end_by_budget(self, spent: SpentBudget) -> list[pb.Event]:
        """The events with which the answer ends here. Only what was produced so far is billed."""
        produced = self._lease.produced
        unfinished = [index for index in range(max(1, self.chat.generate.n)) if index not in self._finished]
        if unfinished:
            self.ended_by = spent
        usage = pb.Usage(
            prompt_tokens=produced.prompt or 0,
            completion_tokens=produced.completion,
            reasoning_tokens=produced.reasoning,
        )
        self._outcome = "budget"
        metrics.TOKENS.labels(self._model, "prompt").inc(usage.prompt_tokens)
        beginning = [] if self._began_events else [pb.Event(started=self._call.started or pb.Started())]
        finishes = [pb.Event(finish=pb.Finish(index=index, reason=pb.FINISH_REASON_LENGTH)) for index in unfinished]
        if self._transcript is not None:
            self._transcript.add(finishes)
        return [*beginning, *finishes, pb.Event(usage=usage)]

    def offer_tokens_to(self, take: Take) -> None:
        """Offer what comes between the beginning and the end to `take` first, at once; what it takes is no event any more."""

        def take_tokens(events: Sequence[pb.Event]) -> Write | None:
            if events[0].HasField("started") or events[-1].HasField("usage"):
                return None
            write = take(events)
            if write is not None:
                self._note(events)
            return write

        self._call.offer_to(take_tokens)

    async def settle(self) -> None:
        """Bill what was produced, and give back what the request held of its key's limits."""
        await self._lease.settle(self._outcome)

    def close(self) -> None:
        """End what is still running, give the worker's place back, and stop listening to the client."""
        self._hang_up.close()
        self.abandon()
        self._lease.settle(self._outcome)

    def abandon(self) -> None:
        """End what is still running and give the worker's place back; another worker may take over."""
        self._call.cancel()
        self._worker.in_flight -= 1
        produced = self._lease.produced
        self._log.update(outcome=self._outcome, completion_tokens=produced.completion)
        if produced.prompt is not None:
            self._log["prompt_tokens"] = produced.prompt
        if self._transcript is not None:
            self._log.update(self._transcript.fields())
        metrics.ANSWER_SECONDS.labels(self._model).observe(time.perf_counter() - self._began)
        metrics.ANSWERS_IN_FLIGHT.labels(self._model).dec()
        metrics.ANSWERS.labels(self._model, self._outcome).inc()
        metrics.TOKENS.labels(self._model, "completion").inc(produced.completion)

    def _complete(self, usage: pb.Usage) -> None:
        self._outcome = "complete"
        metrics.TOKENS.labels(self._model, "prompt").inc(usage.prompt_tokens)

    def _note(self, events: Sequence[pb.Event]) -> None:
        self._began_events = True
        self._lease.count(events)
        self._finished.update(event.finish.index for event in events if event.HasField("finish"))
        if self._transcript is not None:
            self._transcript.add(events)
        if self._first_is_noted:
            self._first_is_noted = False
        elif any(event.delta.token_count for event in events):
            self._note_tokens()

    def _note_tokens(self) -> None:
        now = time.perf_counter()
        if self._last_tokens is None:
            self._log["first_token_ms"] = round((now - self._began) * 1000, 1)
            metrics.FIRST_TOKEN_SECONDS.labels(self._model).observe(now - self._began)
        else:
            self._gaps.observe(now - self._last_tokens)
        self._last_tokens = now

    def _client_gone(self) -> ClientGoneError:
        self._outcome = "client gone"
        return ClientGoneError()

    def _silent(self) -> ApiError:
        self._outcome = "silent"
        return silent()


async def open_answer(
    request: Request, chat: ChatRequest, lease: Lease, workers: InferenceWorkers, *, seconds: float | None
) -> Answer:
    """Begin an answer on the best worker, and wait up to `seconds` (None: as long as it takes) for its beginning.

    Images that are elsewhere are fetched first. A worker that turns out to be unavailable before it began is replaced by
    another one, once. Whatever is raised, `lease` is settled. Raises ApiError, ClientGoneError.
    """
    chat.generate.tenant = lease.subject.key.tenant
    hang_up = HangUp(request.receive)
    failed: InferenceWorker | None = None
    try:
        await dependencies(request).image_fetcher.fill(chat.images)
        while True:
            worker = workers.choose(chat.generate.model, but=failed)
            call = worker.client.generate(chat.generate, request_id=request.state.request_id, size=chat.size)
            hang_up.stops(call.cancel)
            answer = Answer(request, chat, lease, worker=worker, call=call, hang_up=hang_up)
            try:
                await answer.begin(seconds=seconds)
            except Failure as failure:
                answer.abandon()
                if failure.reason is Reason.MODEL_UNAVAILABLE:
                    worker.lose_model(chat.generate.model)
                may_move = failed is None and failure.code is grpc.StatusCode.UNAVAILABLE
                if not may_move or not workers.has_another(chat.generate.model, but=worker):
                    raise from_failure(failure, request_id=request.state.request_id, form=chat.form) from failure
                failed = worker
                metrics.RETRIES.labels(chat.generate.model).inc()
            except BaseException:
                answer.abandon()
                raise
            else:
                answer.chat = without_prompt(chat)
                release_body(request)
                return answer
    except asyncio.CancelledError:
        # As in `events`: nobody but this gateway's end cancels a request.
        hang_up.close()
        await lease.settle("drained")
        raise restarting() from None
    except ApiError as error:
        hang_up.close()
        if error.status < 500:
            request.state.log["outcome"] = "refused"
        await lease.settle("refused" if error.status < 500 else "failed")
        raise
    except BaseException:
        hang_up.close()
        await lease.settle("client gone")
        raise
