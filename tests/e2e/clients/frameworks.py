"""Check frameworks that call OpenAI's API: each answers, streams, shows reasoning and calls tools as far as it can.

This is a program of its own, because the frameworks have an environment of their own. Its argument names the check.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, Literal

from pydantic import BaseModel

URL, KEY = os.environ["VILIX_URL"], os.environ["VILIX_API_KEY"]
THINKING, SMALL, EMBEDDING = "replay-thinking", "smollm2-135m", "multilingual-e5-small"
GREETING, WEATHER = "سلام", "هوا در تهران چطور است؟"
LONG = "word " * 5000
REASONING, ANSWER = "کاربر", "معکوس"
"""Words of the recorded reasoning and of the recorded answer."""


class City(BaseModel):
    """A city."""

    name: Literal["Paris", "تهران"]


def litellm() -> None:
    """Check LiteLLM: an answer, a stream, an overflow that it recognises, embeddings, and the proxy of vLLM servers."""
    import litellm as library

    # Otherwise it prints where to get help with each error, also with the one below that is expected.
    library.suppress_debug_info = True
    common: Any = {"api_base": URL, "api_key": KEY, "num_retries": 0}
    messages = [{"role": "user", "content": GREETING}]
    message = library.completion(model=f"openai/{THINKING}", messages=messages, **common).choices[0].message
    assert REASONING in message.reasoning_content
    assert ANSWER in message.content
    chunks = library.completion(model=f"openai/{THINKING}", messages=messages, stream=True, **common)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert REASONING in "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert ANSWER in "".join(delta.content or "" for delta in deltas)
    try:
        library.completion(model=f"openai/{SMALL}", messages=[{"role": "user", "content": LONG}], **common)
    except library.ContextWindowExceededError:
        pass
    else:
        raise AssertionError("the overflow was accepted")
    vectors = library.embedding(model=f"openai/{EMBEDDING}", input=["سلام"], **common)
    assert len(vectors.data[0]["embedding"]) == 384
    # LiteLLM appends /v1 for servers of this kind.
    hosted = library.completion(model=f"hosted_vllm/{THINKING}", messages=messages, **common)
    assert ANSWER in hosted.choices[0].message.content


def langchain() -> None:
    """Check that LangChain recognises an overflow."""
    from langchain_core.exceptions import ContextOverflowError
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=SMALL, base_url=URL, api_key=KEY, max_retries=0)
    for send in (model.invoke, lambda text: list(model.stream(text))):
        try:
            send(LONG)
        except ContextOverflowError:
            continue
        raise AssertionError("the overflow was not recognised")


def pydantic_ai() -> None:
    """Check pydantic-ai: reasoning, whole and streamed, and a tool."""
    from pydantic_ai import Agent
    from pydantic_ai.messages import TextPart, ThinkingPart
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(THINKING, provider=OpenAIProvider(base_url=URL, api_key=KEY))
    agent, with_tools, cities = Agent(model), Agent(model), []

    @with_tools.tool_plain
    def get_weather(city: str) -> str:
        """Return the weather of a city."""
        cities.append(city)
        return "21 °C"

    assert with_tools.run_sync(WEATHER).output
    assert cities == ["تهران"]
    parts = agent.run_sync(GREETING).response.parts
    assert [type(part) for part in parts] == [ThinkingPart, TextPart]

    async def streamed() -> list[Any]:
        async with agent.run_stream(GREETING) as stream:
            async for _ in stream.stream_text():
                pass
            return list(stream.response.parts)

    assert [type(part) for part in asyncio.run(streamed())] == [ThinkingPart, TextPart]


def openai_agents() -> None:
    """Check OpenAI's Agents SDK with chat completions: a tool, and reasoning that a stream has once."""
    from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    cities = []

    @function_tool
    def get_weather(city: str) -> str:
        """Return the weather of a city."""
        cities.append(city)
        return "21 °C"

    async def check() -> None:
        model = OpenAIChatCompletionsModel(THINKING, AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0))
        assert (await Runner.run(Agent(name="weather", model=model, tools=[get_weather]), WEATHER)).final_output
        assert cities == ["تهران"]
        streamed, reasoning = Runner.run_streamed(Agent(name="plain", model=model), GREETING), ""
        async for event in streamed.stream_events():
            if event.type == "raw_response_event" and ".reasoning_" in event.data.type:
                reasoning += getattr(event.data, "delta", "")
        assert reasoning.count(reasoning[:60]) == 1
        assert ANSWER in streamed.final_output

    asyncio.run(check())


def instructor() -> None:
    """Check Instructor's structured output."""
    import instructor as library
    from openai import OpenAI

    client = OpenAI(base_url=URL, api_key=KEY, max_retries=0)
    patched = library.from_openai(client, mode=library.Mode.JSON_SCHEMA)
    question = {"role": "user", "content": "Name the capital of France."}
    city = patched.chat.completions.create(
        model=SMALL, messages=[question], response_model=City, max_tokens=100, temperature=0, max_retries=0
    )
    assert isinstance(city, City)


def smolagents() -> None:
    """Check the model of smolagents, whole and streamed."""
    from smolagents import OpenAIServerModel

    model = OpenAIServerModel(THINKING, api_base=URL, api_key=KEY)
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": GREETING}]}]
    assert ANSWER in model.generate(messages).content
    assert ANSWER in "".join(delta.content or "" for delta in model.generate_stream(messages))


def haystack() -> None:
    """Check Haystack's generator and embedder."""
    from haystack.components.embedders import OpenAITextEmbedder
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.utils import Secret

    key = Secret.from_token(KEY)
    generator = OpenAIChatGenerator(model=THINKING, api_base_url=URL, api_key=key)
    assert ANSWER in generator.run([ChatMessage.from_user(GREETING)])["replies"][0].text
    embedder = OpenAITextEmbedder(model=EMBEDDING, api_base_url=URL, api_key=key)
    assert len(embedder.run("سلام")["embedding"]) == 384


CHECKS = {
    check.__name__: check
    for check in (litellm, langchain, pydantic_ai, openai_agents, instructor, smolagents, haystack)
}

if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
    print("done")
