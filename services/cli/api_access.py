"""The API that `vilix chat` and `vilix run` call, through OpenAI's SDK."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import openai
import typer

from services.cli.failure import fail
from services.cli.stack_state import RUN_DIR, StateDir, require_state

TIMEOUT_SECONDS: Final = 120.0


@dataclass(frozen=True)
class ApiOptions:
    """The options of commands that generate text."""

    url: Annotated[
        str,
        typer.Option(metavar="URL", envvar="VILIX_URL", help="The API's address; default: the running local stack."),
    ] = ""
    system: Annotated[str, typer.Option(metavar="TEXT", help="The system prompt.")] = ""
    max_tokens: Annotated[int | None, typer.Option(metavar="N", min=1, help="The most tokens of a response.")] = None
    temperature: Annotated[
        float | None,
        typer.Option(metavar="X", min=0.0, max=2.0, help="Low: predictable; high: varied. Default: the model's own."),
    ] = None
    thinking: Annotated[bool, typer.Option(help="Whether a reasoning model reasons before it answers.")] = True
    image: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="An image for the first message. Repeatable.")
    ] = None
    state_dir: StateDir = field(default=RUN_DIR)

    def parameters(self) -> dict[str, Any]:
        """Return the fields of a request."""
        fields = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        parameters: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
        if not self.thinking:
            parameters["extra_body"] = {"chat_template_kwargs": {"enable_thinking": False}}
        return parameters


@contextmanager
def connected(options: ApiOptions) -> Iterator[openai.OpenAI]:
    """Yield a client of the API. What ends the context as an error of the API ends the command with one line."""
    base_url = options.url or str(require_state(options.state_dir, otherwise="set --url")["url"])
    # The local stack is never behind a proxy.
    http_client = openai.DefaultHttpx2Client(trust_env=bool(options.url))
    with openai.OpenAI(
        base_url=base_url,
        api_key=_api_key(options.state_dir),
        http_client=http_client,
        timeout=TIMEOUT_SECONDS,
        max_retries=0,
    ) as client:
        try:
            yield client
        except openai.OpenAIError as error:
            fail(explain(error, base_url))


def explain(error: openai.OpenAIError, base_url: str) -> str:
    """Return in one line what went wrong, with the id of the request."""
    if isinstance(error, openai.APITimeoutError):
        return f"{base_url} has sent nothing for {TIMEOUT_SECONDS:g} s"
    if isinstance(error, openai.APIConnectionError):
        reason = error.__cause__ or error
        return f"{base_url} cannot be reached: {reason}; start the stack with make run, or set --url"
    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        message = body.get("message") or (
            f"{error.response.url} returned status {error.status_code}; check that --url is the API's address"
        )
        return f"{message} ({error.status_code}, {error.request_id or 'no request id'})"
    return str(error)


def _api_key(state_dir: Path) -> str:
    path = state_dir / "api-key"
    key = os.environ.get("VILIX_API_KEY", "") or (path.read_text().strip() if path.exists() else "")
    return key or fail("there is no API key; set the variable VILIX_API_KEY")
