"""The model that Triton loads: passes requests to an engine, and the engine's tokens to Triton."""

from __future__ import annotations

import json
import weakref
from dataclasses import asdict
from typing import Any, Final

import triton_python_backend_utils as pb_utils

from services.inference.triton_backend.contract import (
    STREAM_ENDED,
    SUPPORTED_BY_ALL,
    Acknowledgement,
    Cancellation,
    Describe,
    Engine,
    OpenSteps,
    Params,
    Request,
    Sink,
    Step,
    StepAcknowledgement,
    StepCancellation,
    invalid,
)
from services.inference.triton_backend.params_parser import parse
from services.inference.triton_backend.step_stream import StepStream
from services.inference.triton_backend.stream import (
    Sender,
    Stream,
    respond_empty,
    respond_with_description,
    respond_with_error,
)
from services.worker.triton_kit.request_error import RequestError
from services.worker.triton_kit.triton_model import load_engine

ENGINES: Final = ("trtllm", "vllm", "llamacpp", "replay")


class TritonPythonModel:
    """One language model. Triton calls its methods one after another, from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine that the model's configuration names. Raises TritonModelException with a one-line message."""
        self._engine: Engine = load_engine(args, package="services.inference.triton_backend.engines", engines=ENGINES)
        self._sender = Sender()
        self._streams: weakref.WeakValueDictionary[str, Stream] = weakref.WeakValueDictionary()
        self._step_streams: weakref.WeakValueDictionary[str, StepStream] = weakref.WeakValueDictionary()

    def execute(self, requests: list[Any]) -> None:
        """Submit requests to the engine, which responds to them later."""
        for request in requests:
            response_sender = request.get_response_sender()
            try:
                self._take(request, response_sender)
            except RequestError as error:
                respond_with_error(response_sender, error)
            except Exception as error:  # noqa: BLE001 - the fault of one request must not end the others
                pb_utils.Logger.log_error(f"request {request.request_id()!r}: {error!r}")
                failed = RequestError("ENGINE_FAILED", "engine_failed", reason="it could not take the request")
                respond_with_error(response_sender, failed)

    def is_ready(self) -> bool:
        """Return whether the engine works. Triton's versions since spring 2026 use it for the model's readiness."""
        try:
            self._engine.load()
        except RequestError:
            return False
        return True

    def finalize(self) -> None:
        """Stop all threads."""
        self._engine.close()
        self._sender.close()

    def _take(self, request: Any, response_sender: Any) -> None:
        params = parse(_text(request, "params") or "{}")
        if isinstance(params, Params):
            self._submit(request, params, response_sender)
        elif isinstance(params, OpenSteps):
            self._open_steps(request.request_id(), response_sender)
        elif isinstance(params, Describe):
            respond_with_description(response_sender, self._description())
        else:
            if self._control(params):
                self._engine.wake()
            respond_empty(response_sender)

    def _control(self, params: Acknowledgement | Cancellation | StepAcknowledgement | StepCancellation) -> bool:
        """Pass a control request to its stream. Return whether there is one."""
        if isinstance(params, StepAcknowledgement | StepCancellation):
            steps = self._step_streams.get(params.stream)
            if steps is None:
                return False
            if isinstance(params, StepAcknowledgement):
                steps.acknowledge(params.responses)
            else:
                steps.cancel(params.requests)
            return True
        stream = self._streams.get(params.request_id) or self._step_streams.get(params.request_id)
        if stream is None:
            return False
        if isinstance(params, Cancellation):
            stream.cancel()
        elif isinstance(stream, Stream):
            stream.acknowledge(params.responses)
        return True

    def _open_steps(self, name: str, response_sender: Any) -> None:
        if not name or name in self._step_streams or name in self._streams:
            raise invalid(f"a stream of steps needs an id of its own, and {name!r} is not")
        stream = self._step_streams[name] = StepStream(response_sender, self._sender)
        self._sender.watch(stream)

    def _submit(self, request: Any, params: Params, response_sender: Any) -> None:
        engine_request = _read(request, params)
        _reject_unsupported(engine_request, self._engine)
        if params.step is not None:
            self._submit_to_steps(engine_request, params.step, request.request_id())
            respond_empty(response_sender)
            return
        request_id = request.request_id()
        if params.window is not None and (not request_id or request_id in self._streams):
            raise invalid(f"a request with a window needs an id of its own, and {request_id!r} is not")
        stream = Stream(response_sender, self._sender, window=params.window, name=request_id)
        self._engine.submit(engine_request, stream)
        if request_id:
            self._streams[request_id] = stream

    def _submit_to_steps(self, request: Request, step: Step, name: str) -> None:
        steps = self._step_streams.get(step.stream)
        if steps is None:
            raise RequestError(STREAM_ENDED, "engine_parameters_not_valid", reason="there is no such stream of steps")
        sink: Sink = steps.open(step.request, window=request.params.window, name=name)
        try:
            self._engine.submit(request, sink)
        except BaseException:
            steps.discard(step.request)
            raise

    def _description(self) -> str:
        engine = self._engine
        return json.dumps(
            {
                "engine": engine.name,
                "version": engine.version,
                "structured_output_library": engine.structured_output_library,
                "structured_output_library_version": engine.structured_output_library_version,
                "supported_parameters": sorted(engine.supported_parameters | SUPPORTED_BY_ALL),
                "context_length": engine.context_length,
                "slots": engine.slots,
                "load": asdict(engine.load()),
            }
        )


def _read(request: Any, params: Params) -> Request:
    ids = pb_utils.get_input_tensor_by_name(request, "prompt_token_ids")
    text = _text(request, "text_input")
    if (ids is None) == (text is None):
        problem = "exactly one of prompt_token_ids and text_input is needed"
        raise RequestError("INVALID_ARGUMENT", "engine_parameters_not_valid", reason=problem)
    images = pb_utils.get_input_tensor_by_name(request, "images")
    return Request(
        params=params,
        prompt_token_ids=[] if ids is None else ids.as_numpy().reshape(-1).tolist(),
        text_input=text,
        images=() if images is None else tuple(images.as_numpy().reshape(-1)),
    )


def _reject_unsupported(request: Request, engine: Engine) -> None:
    """Raise RequestError for the first parameter that `engine` does not support."""
    names = request.params.names | ({"images"} if request.images else set())
    unsupported = sorted(names - engine.supported_parameters - SUPPORTED_BY_ALL)
    if unsupported:
        raise RequestError(
            "UNSUPPORTED_PARAMETER", "engine_lacks_parameter", engine=engine.name, parameter=unsupported[0]
        )


def _text(request: Any, name: str) -> str | None:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    values = tensor.as_numpy().reshape(-1)
    if len(values) != 1:
        problem = f"{name} must hold one string, not {len(values)}"
        raise RequestError("INVALID_ARGUMENT", "engine_parameters_not_valid", reason=problem)
    try:
        return str(values[0].decode())
    except UnicodeDecodeError as error:
        problem = f"{name} is not UTF-8: {error}"
        raise RequestError("INVALID_ARGUMENT", "engine_parameters_not_valid", reason=problem) from None
