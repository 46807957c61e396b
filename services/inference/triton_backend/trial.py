"""Compiles structured outputs for trial in a child process, before the engine's own process compiles them.

Compilers of grammars are recursive and allocate whatever the input requires: a few bytes can require all memory, or
overflow the stack of the process. A structured output is therefore first compiled by a process that may crash, with the
engine's own library and under limits (see trial_server.py and docs/adr/0013). Outcomes are remembered by content.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from services.inference.triton_backend import trial_server
from services.inference.triton_backend.contract import STRUCTURED_OUTPUT, StructuredOutput
from services.inference.triton_backend.interpreter import python
from services.worker.triton_kit.request_error import RequestError

READY_SECONDS: Final = 600.0
"""The timeout of the first start, which reads the model's files: minutes on a machine that has much else to do."""
LEAST_READY_SECONDS: Final = 5.0
"""Later starts may take three times as long as the first one, plus this time."""
MOST_PASSED: Final = 4096
MOST_REJECTED: Final = 512
REJECTED_SECONDS: Final = 60.0
KEPT_BYTES: Final = 32 * 2**20
"""The most memory that a compiled structured output may take: the engine keeps some of them."""
_OUTCOME_SECONDS: Final = trial_server.WALL_SECONDS + 2
_SIMPLE: Final = StructuredOutput("json_object", "")
_ROOT: Final = Path(__file__).parents[3]


class Trials:
    """A trial server, which is restarted when it has ended. All methods may be called from any thread."""

    def __init__(self, module: str, arguments: Mapping[str, Any]) -> None:
        """Start the server, in which `module.prepare(arguments)` returns the function that compiles.

        `wait_ready` waits for the server. Raises OSError if it cannot be started.
        """
        self._command: Final = [
            python(),
            "-I",
            str(Path(trial_server.__file__)),
            module,
            json.dumps(dict(arguments)),
            json.dumps([str(_ROOT), *(entry for entry in sys.path if entry)]),
        ]
        self._lock: Final = threading.Lock()
        """Held to use or replace the server."""
        self._remembering: Final = threading.Lock()
        self._passed: Final[OrderedDict[bytes, int]] = OrderedDict()
        self._rejected: Final[OrderedDict[bytes, tuple[float, RequestError]]] = OrderedDict()
        self._common = 0
        """The memory that every trial takes, in bytes."""
        self._closed = False
        self._is_ready = False
        self._ready_seconds = READY_SECONDS
        self.restarts = 0
        self._start()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Wait until the server is ready. Raises RuntimeError if it does not become ready."""
        with self._lock:
            if not self._is_ready:
                self._await_ready()
        self._common = _memory_of(self._outcome(_SIMPLE))

    def check(self, structured_output: StructuredOutput) -> int:
        """Compile a structured output for trial, and return the bytes of memory that it takes.

        It takes up to WALL_SECONDS. Raises RequestError if the trial fails.
        """
        key = hashlib.sha256(f"{structured_output.kind}\0{structured_output.text}".encode()).digest()
        known = self._known(key)
        if known is not None:
            return known
        try:
            outcome = self._outcome(structured_output)
            grown = max(0, _memory_of(outcome) - self._common)
        except RequestError as error:
            if error.reason in ("INVALID_ARGUMENT", "UNSUPPORTED_PARAMETER"):
                with self._remembering:
                    self._rejected[key] = time.monotonic(), error
                    if len(self._rejected) > MOST_REJECTED:
                        self._rejected.popitem(last=False)
            raise
        with self._remembering:
            self._passed[key] = grown
            if len(self._passed) > MOST_PASSED:
                self._passed.popitem(last=False)
        return grown

    def close(self) -> None:
        """End the server and all trials."""
        with self._lock:
            self._closed = True
            self._stop()

    def _known(self, key: bytes) -> int | None:
        """Return the size of a structured output that has passed, or None if it has not been tried.

        Raises RequestError if it was rejected less than REJECTED_SECONDS ago.
        """
        with self._remembering:
            if key in self._passed:
                self._passed.move_to_end(key)
                return self._passed[key]
            when, error = self._rejected.get(key, (0.0, None))
            if error is None:
                return None
            if time.monotonic() - when > REJECTED_SECONDS:
                del self._rejected[key]
                return None
        raise RequestError(error.reason, error.message_id, **error.parameters)

    def _outcome(self, structured_output: StructuredOutput) -> dict[str, Any]:
        for _ in range(2):
            with contextlib.suppress(ConnectionError, TimeoutError, BrokenPipeError):
                return self._try_once(structured_output)
        raise busy()

    def _try_once(self, structured_output: StructuredOutput) -> dict[str, Any]:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = self._hand_over(theirs)
            ours.settimeout(_OUTCOME_SECONDS)
            # A trial that crashes before it has read all input has an outcome as well.
            try:
                with contextlib.suppress(BrokenPipeError):
                    ours.sendall(json.dumps([structured_output.kind, structured_output.text]).encode())
                    ours.shutdown(socket.SHUT_WR)
                return self._read_outcome(ours)
            except TimeoutError:
                # The server ends every trial before that, unless it hangs. The next trial starts another server.
                process.kill()
                process.wait()
                raise

    @staticmethod
    def _read_outcome(connection: socket.socket) -> dict[str, Any]:
        outcome: dict[str, Any] = {}
        with connection.makefile("rb") as lines:
            for line in lines:
                outcome |= json.loads(line)
        if "exit" not in outcome:
            raise ConnectionError("the trial server has ended")
        return outcome

    def _hand_over(self, connection: socket.socket) -> subprocess.Popen[bytes]:
        """Start a trial in the server, whose process is returned."""
        with self._lock:
            if self._closed:
                raise RequestError("ENGINE_FAILED", "engine_failed", reason="it is stopping")
            try:
                if self._process.poll() is not None:
                    raise ConnectionError
                if not self._is_ready:
                    self._await_ready()
                socket.send_fds(self._control, [b"t"], [connection.fileno()])
            except (OSError, RuntimeError):
                self._stop()
                self._start()
                self.restarts += 1
                try:
                    self._await_ready()
                except RuntimeError as error:
                    # A server that hangs while it starts is not waited for twice.
                    self._stop()
                    raise ConnectionError(str(error)) from None
                socket.send_fds(self._control, [b"t"], [connection.fileno()])
            return self._process

    def _start(self) -> None:
        self._is_ready = False
        self._control, theirs = socket.socketpair()
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
        with theirs:
            try:
                self._process = subprocess.Popen(
                    self._command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment, cwd="/"
                )
            except BaseException:
                self._control.close()
                raise

    def _await_ready(self) -> None:
        began = time.monotonic()
        self._control.settimeout(self._ready_seconds)
        line = b""
        try:
            while not line.endswith(b"\n"):
                part = self._control.recv(4096)
                if not part:
                    raise RuntimeError(f"the trial server of structured outputs has ended with {self._process.wait(5)}")
                line += part
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeError(f"the trial server of structured outputs does not become ready: {error}") from None
        problem = json.loads(line).get("problem")
        if problem:
            raise RuntimeError(f"the trial server of structured outputs cannot start: {problem}")
        self._control.settimeout(_OUTCOME_SECONDS)
        self._is_ready = True
        if self._ready_seconds == READY_SECONDS:
            self._ready_seconds = min(READY_SECONDS, LEAST_READY_SECONDS + 3 * (time.monotonic() - began))

    def _stop(self) -> None:
        self._control.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _memory_of(outcome: Mapping[str, Any]) -> int:
    """Return the memory in bytes that a compiled structured output takes. Raises RequestError if the trial failed."""
    if "reason" in outcome:
        raise RequestError(outcome["reason"], outcome["message_id"], **outcome["parameters"])
    code, seconds, limit = outcome["exit"], trial_server.CPU_SECONDS, trial_server.MEMORY_BYTES // 2**20
    if (outcome["late"] or code == -signal.SIGKILL) and outcome["cpu"] < seconds:
        # The machine had no time or no memory for the trial, which the structured output has not caused.
        raise busy()
    if outcome["late"] or code == -signal.SIGXCPU or (code == -signal.SIGKILL and outcome["cpu"] >= seconds):
        raise RequestError(
            "INVALID_ARGUMENT", "structured_output_compiles_too_long", field=STRUCTURED_OUTPUT, limit=seconds
        )
    if code == -signal.SIGSEGV:
        raise RequestError("INVALID_ARGUMENT", "structured_output_nested_too_deeply", field=STRUCTURED_OUTPUT)
    if code != 0:
        raise RequestError(
            "INVALID_ARGUMENT", "structured_output_compiles_in_too_much", field=STRUCTURED_OUTPUT, limit=limit
        )
    grown = int(outcome.get("grown", 0))
    if grown > KEPT_BYTES:
        raise RequestError(
            "INVALID_ARGUMENT",
            "structured_output_takes_too_much",
            field=STRUCTURED_OUTPUT,
            value=grown // 2**20,
            limit=KEPT_BYTES // 2**20,
        )
    return grown


def busy() -> RequestError:
    """Return the error of a structured output for which the machine had no time or memory."""
    return RequestError("OVERLOADED", "structured_output_not_compiled")
