"""`vilix chat`: a conversation in the terminal, to try a deployment."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx2
import typer

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
TIMEOUT_SECONDS = 120
_CONTROL = {code: None for code in range(32) if chr(code) not in "\n\t"} | dict.fromkeys(range(127, 160))


class _RejectedError(Exception):
    """The gateway rejected a request. The message is the one of its response."""


@dataclass
class _Conversation:
    """The conversation with a model of a gateway, which `client` reaches."""

    client: httpx2.Client
    model: str
    options: dict[str, Any]
    messages: list[dict[str, str]] = field(default_factory=list)

    def models(self) -> list[str]:
        """Return the ids of the available chat models. Raises as `ask` does."""
        response = self.client.get("models")
        _check(response)
        listed = response.json()["data"]
        return [model["id"] for model in listed if model.get("available") and model.get("capabilities", {}).get("chat")]

    def ask(self, text: str) -> Iterator[tuple[str, str]]:
        """Send a message, and yield the deltas of the response: `reasoning` or `answer`, and the text.

        Raises:
            _RejectedError: The gateway rejected the request, or the stream ended with an error.
            httpx2.HTTPError: The gateway cannot be reached.
        """
        self.messages.append({"role": "user", "content": text})
        body = {"model": self.model, "messages": self.messages, "stream": True, **self.options}
        content = ""
        with self.client.sse("chat/completions", method="POST", json=body) as events:
            _check(events.response)
            for event in events:
                if event.data == "[DONE]":
                    break
                chunk = json.loads(event.data)
                if "error" in chunk:
                    raise _RejectedError(chunk["error"]["message"])
                for choice in chunk["choices"]:
                    for kind, name in (("reasoning", "reasoning_content"), ("answer", "content")):
                        if text_delta := choice["delta"].get(name):
                            content += text_delta if kind == "answer" else ""
                            yield kind, text_delta.translate(_CONTROL)
        self.messages.append({"role": "assistant", "content": content})


def _check(response: httpx2.Response) -> None:
    """Raise _RejectedError for a response that is not a success."""
    if response.status_code == httpx2.codes.OK:
        return
    try:
        message = json.loads(response.read())["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"{response.url} returned status {response.status_code}; check that --url is the API's address"
    request_id = response.headers.get("x-request-id", "no request id")
    raise _RejectedError(f"{message} ({response.status_code}, {request_id})")


def chat(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="The model's id; default: the first available chat model.")
    ] = "",
    *,
    url: Annotated[
        str, typer.Option(envvar="VILIX_URL", help="The API's address; default: the running local stack.")
    ] = "",
    system: Annotated[str, typer.Option(help="The system prompt.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The most tokens of a response.")] = None,
    thinking: Annotated[bool, typer.Option(help="Whether a reasoning model reasons before it answers.")] = True,
    state_dir: Annotated[Path, typer.Option(help="The directory of the local stack's state.")] = Path(".run"),
) -> None:
    """Chat with a model in the terminal. Reasoning is dim; Ctrl-C stops a response, and Ctrl-D exits.

    The API key is read from VILIX_API_KEY, or else from the running local stack. Piped input is sent as one message.

    Examples:
      vilix chat
      vilix chat qwen3-8b --url https://ai.example.com/api
      echo "Why is the sky blue?" | vilix chat smollm2-135m --max-tokens 50
    """
    options: dict[str, Any] = {"max_tokens": max_tokens} if max_tokens else {}
    if not thinking:
        options["chat_template_kwargs"] = {"enable_thinking": False}
    base_url = url or _local_url(state_dir)
    headers = {"Authorization": f"Bearer {_api_key(state_dir)}"}
    # The local stack is never behind a proxy.
    try:
        with httpx2.Client(base_url=base_url, headers=headers, timeout=TIMEOUT_SECONDS, trust_env=bool(url)) as client:
            conversation = _Conversation(client, model, options)
            if system:
                conversation.messages.append({"role": "system", "content": system})
            conversation.model = model or _first(conversation.models())
            if sys.stdin.isatty():
                _converse(conversation)
            elif text := sys.stdin.read().strip():
                _show(conversation, text)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        _fail(f"{base_url} cannot be reached: {error}; start the stack with make run, or set --url")
    except _RejectedError as error:
        _fail(str(error))


def _converse(conversation: _Conversation) -> None:
    print(f"{DIM}{conversation.model}; Ctrl-D exits{PLAIN}")
    while True:
        try:
            text = input("› ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if not text:
            continue
        try:
            _show(conversation, text)
        except KeyboardInterrupt:
            print(f"{PLAIN}\n{DIM}stopped{PLAIN}")
            conversation.messages.pop()
        except _RejectedError as error:
            print(f"{PLAIN}error: {error}", file=sys.stderr)
            conversation.messages.pop()


def _show(conversation: _Conversation, text: str) -> None:
    colours = sys.stdout.isatty()
    last = ""
    for kind, delta in conversation.ask(text):
        if kind != last:
            between = "\n\n" if last else ""
            print(between + ((DIM if kind == "reasoning" else PLAIN) if colours else ""), end="")
            last = kind
        print(delta, end="", flush=True)
    print(PLAIN if colours else "")


def _local_url(state_dir: Path) -> str:
    try:
        return str(json.loads((state_dir / "state.json").read_text())["url"])
    except (OSError, ValueError, KeyError):
        _fail(f"no stack is running in {state_dir}; start one with make run, or set --url")


def _api_key(state_dir: Path) -> str:
    path = state_dir / "api-key"
    key = os.environ.get("VILIX_API_KEY", "") or (path.read_text().strip() if path.exists() else "")
    return key or _fail("there is no API key; set the variable VILIX_API_KEY")


def _first(models: list[str]) -> str:
    return models[0] if models else _fail("no chat model is available at the moment; try again in a few seconds")


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(1)
