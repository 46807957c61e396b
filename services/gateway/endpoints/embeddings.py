"""POST /embeddings: a request's whole way through the gateway."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, Final

import grpc
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway import metrics
from services.gateway.dependencies import dependencies, note_model
from services.gateway.dialects.openai_embeddings.embedding_objects import PIECE_NUMBERS, pieces
from services.gateway.dialects.openai_embeddings.embedding_request import EmbeddingRequest, translate
from services.gateway.edge.body import read_json
from services.gateway.edge.hang_up import ClientGoneError, HangUp
from services.gateway.errors import JSON, from_rpc, restarting, silent
from services.gateway.routing.embeddings_client import EmbeddingsWorker, EmbeddingsWorkers
from services.gateway.routing.message_size import check_number_of_elements
from services.gateway.tenancy.admission import admit, refuse_early
from services.gateway.tenancy.auth import recognise
from services.gateway.tenancy.demand import Demand, demand_of_embedding
from services.runtime.failure import Reason, failure_of
from services.runtime.pulse import SilenceError


async def create_embeddings(request: Request) -> Response:
    """Answer texts with vectors."""
    gateway = dependencies(request)
    caller = await recognise(request, gateway.keyring)
    asked, demand = await read_json(
        request,
        _understand,
        max_bytes=gateway.settings.max_body_bytes,
        budget=gateway.bodies,
        key_id=caller.key.id,
        before_large=partial(refuse_early, request, caller),
    )
    note_model(request, asked.embed.model)
    admission = await admit(request, caller, demand, gateway.embedders)
    async with await admission.get() as lease:
        answer = await _embed(request, asked.embed, gateway.embedders)
        lease.produced.prompt = sum(answer.token_counts)
    return Vectors(asked, answer, lease.headers)


def _understand(body: Any) -> tuple[EmbeddingRequest, Demand]:
    asked = translate(body)
    check_number_of_elements(asked.embed)
    return asked, demand_of_embedding(asked.embed)


class Vectors(Response):
    """Sends vectors, encoded piece by piece; between two pieces, the loop serves others."""

    def __init__(self, asked: EmbeddingRequest, answer: pb.EmbedResponse, headers: dict[str, str]) -> None:
        """A small answer is made at once, with its length; of a large one, the length is not known before its end."""
        encoded = pieces(answer, model=asked.embed.model, in_base64=asked.in_base64)
        small = answer.count * answer.dimensions <= PIECE_NUMBERS
        super().__init__(b"".join(encoded) if small else b"", headers=headers, media_type=JSON)
        self._pieces: Final = None if small else encoded
        if not small:
            del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything."""
        if self._pieces is None:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            # A client that reads fast would leave no room for anybody else.
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})


async def _embed(request: Request, embed: pb.EmbedRequest, workers: EmbeddingsWorkers) -> pb.EmbedResponse:
    """The vectors, from the best worker, or from another one when it turns out to be unavailable.

    Raises ApiError, and ClientGoneError when nobody waits for them any more.
    """
    hang_up = HangUp(request.receive)
    try:
        worker = workers.choose(embed.model)
        try:
            return await _call(request, embed, worker, hang_up)
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            if failure is not None and failure.reason is Reason.MODEL_UNAVAILABLE:
                worker.lose_model(embed.model)
            if error.code() is not grpc.StatusCode.UNAVAILABLE or not workers.has_another(embed.model, but=worker):
                raise
            metrics.RETRIES.labels(embed.model).inc()
        return await _call(request, embed, workers.choose(embed.model, but=worker), hang_up)
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, request_id=request.state.request_id) from error
    except asyncio.CancelledError:
        if hang_up.happened:
            raise ClientGoneError from None
        # The other reason is the end of the time that this gateway has left.
        raise restarting() from None
    finally:
        hang_up.close()


async def _call(
    request: Request, embed: pb.EmbedRequest, worker: EmbeddingsWorker, hang_up: HangUp
) -> pb.EmbedResponse:
    call = worker.client.embed(embed, request_id=request.state.request_id)
    hang_up.stops(call.cancel)
    outcome = "stopped"
    worker.in_flight += 1
    began = time.perf_counter()
    try:
        async with worker.client.signs_of_life.required():
            answer = await call
        outcome = "complete"
    except SilenceError:
        outcome = "silent"
        raise silent() from None
    except grpc.aio.AioRpcError as error:
        outcome = error.code().name
        raise
    finally:
        worker.in_flight -= 1
        call.cancel()
        request.state.log["outcome"] = outcome
        metrics.EMBEDDINGS.labels(embed.model, outcome).inc()
        metrics.ANSWER_SECONDS.labels(embed.model).observe(time.perf_counter() - began)
    tokens = sum(answer.token_counts)
    request.state.log.update(texts=answer.count, prompt_tokens=tokens)
    metrics.TOKENS.labels(embed.model, "prompt").inc(tokens)
    return answer
