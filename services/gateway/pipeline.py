"""The path of a request through the gateway. Every POST endpoint of every API takes it; there is no other."""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any

from services.gateway.dialects.worker_fields import use_callers_names
from services.gateway.edge.body import parse
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError
from services.gateway.operations.operation import Endpoint, Operation
from services.gateway.tenancy.admission import check_model
from services.gateway.tenancy.auth import authenticate, authenticate_from_cache
from services.gateway.tenancy.key_cache import Caller
from services.gateway.wiring import Gateway


async def serve(exchange: Exchange, endpoint: Endpoint, gateway: Gateway) -> None:
    """Serve a request, from its authentication to the last byte of its response.

    It is wrapped by two callers: the middleware Access, which has begun the request's record, and `Post`, which renders
    the errors that are raised here before the response has begun. Later errors are written into the response.

    Raises ApiError and ClientGoneError before the response has begun.
    """
    record, body, admission_control = exchange.record, exchange.body, gateway.admission

    # Authenticate. A key that was valid a moment ago is not looked up again; admission checks that it still is.
    record.enter("authenticate")
    credential = endpoint.dialect.credential(exchange.headers)
    caller = await authenticate_from_cache(credential, gateway.key_cache)
    record.key_id, record.receipt.authenticated_at = caller.key.id, perf_counter()
    record.enter("read")
    gateway.live_requests.enter(record, caller.key, exchange.cleanup)
    # Gate: a large body is read only for a key that is within its limits, and any body only if there is capacity.
    gate, share = admission_control.gate(caller), gateway.bodies.open(caller.key.id)
    raw = await body.read(max_bytes=gateway.settings.max_body_bytes, share=share, gate=gate)
    # Read.
    read = partial(endpoint.read, strict=exchange.is_strict, tenant=caller.key.tenant)
    operation = await parse(raw, lambda body: read(gateway.aliases.resolve(body, record.receipt)))
    del raw
    record.note_model(operation.model, is_known=gateway.fleet.knows(operation.model))
    record.stream = operation.stream
    # Validate.
    caller = await validate(caller, operation, gateway)
    # Recall: a request may continue what an earlier one has stored.
    await operation.recall(caller, body)
    # Detach: a background request that passes the gate is answered now. Its work goes on without its client.
    work = partial(perform, caller=caller, operation=operation, gateway=gateway)
    if not await operation.detach(exchange, caller, admission_control.gate(caller), work):
        await work(exchange)


async def perform(exchange: Exchange, *, caller: Caller, operation: Operation[Any], gateway: Gateway) -> None:
    """Do the work of a request: from its admission to the last byte of its response. Raises as `serve` does."""
    record = exchange.record
    exchange.disconnect.listen()
    reply = operation.reply(exchange)
    try:
        # Admit.
        record.enter("admit")
        admission = await gateway.admission.admit(caller, operation.estimate, exchange.disconnect, record)
        gateway.live_requests.enter(record, caller.key, exchange.cleanup).admission = admission
        async with admission:
            # Wait in the queue, if the request was not admitted at once, and tell the client its position.
            if not admission.is_admitted:
                async for position in admission.queue():
                    await reply.queued(position, admission.limits)
            # Generate: start the work. For a stream, only the beginning is awaited.
            record.enter("serve")
            result = await operation.run(exchange, admission.reservation)
            # Write the response: a stream's events as they arrive, or one document.
            await reply.write(result, admission.limits)
        # Settle: the end of the block, however it was left, released the slot and billed the real use.
    except ApiError as error:
        use_callers_names(error, operation.field_name)
        await reply.fail(error)


async def validate(caller: Caller, operation: Operation[Any], gateway: Gateway) -> Caller:
    """Check that the operation's model exists and that the caller may use it.

    Return the caller. If a check fails, the key is looked up again, because it may have been revoked or changed.

    Raises:
        ApiError: The key was revoked (401), may not use the model (403), the model does not exist (404), or it is used
            at another endpoint (400).
    """
    try:
        _check(caller, operation, gateway)
    except ApiError:
        # A key that was revoked meanwhile must get 401, and no hint about models.
        caller = await authenticate(caller.credential, gateway.key_cache)
        _check(caller, operation, gateway)
    return caller


def _check(caller: Caller, operation: Operation[Any], gateway: Gateway) -> None:
    check_model(caller.key, operation.model)
    # A name that does not exist must not get into Redis.
    gateway.fleet.check(operation.model, operation.pool)
