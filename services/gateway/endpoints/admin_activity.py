"""GET /activity of the admin API: the running requests of this gateway, and the load of the models' engines."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from services.gateway.endpoints import admin_examples
from services.gateway.live_requests import LiveRequest, LiveRequests, Phase
from services.gateway.routing.engine_load import EngineLoad, read_engine_loads
from services.gateway.routing.fleet import Fleet

MAX_REQUESTS: Final = 1000


class RunningRequest(BaseModel):
    """A running request."""

    request_id: str
    key_id: str
    key_name: str
    owner: str = Field(description="The owner of the key; empty if it has none.")
    model: str | None = Field(description="The model that it names; null while its body is being received.")
    phase: Phase
    stream: bool | None = Field(description="Whether it asked for a stream; null for other kinds of requests.")
    seconds: float = Field(description="Seconds since its headers were received.")
    first_token_ms: float | None = Field(description="Milliseconds from the call of the worker to the first token.")
    prompt_tokens: int | None = Field(description="Null while the worker has not counted them.")
    completion_tokens: int
    tokens_per_second: float | None = Field(description="Since the first token; null before the second one.")


class Engine(BaseModel):
    """The load of one model on one worker."""

    worker: str = Field(description="The worker's address.")
    slots: int = Field(description="How many requests the engine can run at the same time.")
    running: int
    queued: int = Field(description="Requests that wait for a slot.")
    kv_cache_use: float = Field(description="The used share of the KV cache, 0 to 1; 0 if the engine reports none.")
    tokens_per_second: float = Field(description="Generated tokens per second over the last ten seconds.")


class ServedModel(BaseModel):
    """A model, with its engine on each worker."""

    id: str
    available: bool
    engines: list[Engine] = Field(description="Empty for embedding models, whose workers report no load.")


class Activity(BaseModel):
    """The activity of this gateway and of the workers that it knows."""

    requests_total: int = Field(description="The number of running requests, also of those that are not listed.")
    requests: list[RunningRequest] = Field(description="The oldest running requests.")
    models: list[ServedModel]


router: Final = APIRouter(tags=["activity"])


@router.get("/activity", responses=admin_examples.ACTIVITY)
async def show_activity(request: Request, limit: Annotated[int, Query(ge=0, le=MAX_REQUESTS)] = 200) -> Activity:
    """Show the running requests of this gateway, and the load of the models. Prompts and responses are not shown.

    Each gateway knows its own requests only; ask every gateway of a deployment for all of them.
    """
    fleet: Fleet = request.app.state.fleet
    live: LiveRequests = request.app.state.live_requests
    loads = await read_engine_loads(fleet.inference)
    running = live.all()
    return Activity(
        requests_total=len(running),
        requests=[_request(one) for one in running[:limit]],
        models=[
            ServedModel(
                id=model_id,
                available=model is not None,
                engines=[_engine(load) for load in loads if load.model == model_id],
            )
            for model_id, model in fleet.models().items()
        ],
    )


def _request(live: LiveRequest) -> RunningRequest:
    record, (prompt, completion), rate = live.record, live.tokens, live.tokens_per_second
    return RunningRequest(
        request_id=record.request_id,
        key_id=live.key.id,
        key_name=live.key.name,
        owner=live.key.owner,
        model=record.model,
        phase=live.phase,
        stream=record.stream,
        seconds=round(live.seconds, 3),
        first_token_ms=record.first_token_ms,
        prompt_tokens=prompt,
        completion_tokens=completion,
        tokens_per_second=None if rate is None else round(rate, 1),
    )


def _engine(load: EngineLoad) -> Engine:
    return Engine(
        worker=load.worker,
        slots=load.slots,
        running=load.running,
        queued=load.queued,
        kv_cache_use=round(load.kv_cache_use, 4),
        tokens_per_second=round(load.tokens_per_second, 1),
    )
