"""Check openai-agents with its default model class: a tool over two turns, whole and streamed, and a conversation."""

import asyncio
import os

from agents import (
    Agent,
    RunConfig,
    Runner,
    SQLiteSession,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

MODEL = os.environ["VILIX_MODEL"]


@function_tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"{city}: 21 °C"


async def main() -> None:
    """Run all checks."""
    set_tracing_disabled(True)
    url, key = os.environ["VILIX_URL"], os.environ["VILIX_API_KEY"]
    set_default_openai_client(AsyncOpenAI(base_url=url, api_key=key, max_retries=0), use_for_tracing=False)
    agent = Agent(name="weather", instructions="Be brief.", model=MODEL, tools=[get_weather])
    result = await Runner.run(agent, "هوا در تهران چطور است؟", run_config=RunConfig(tracing_disabled=True))
    assert "21 °C" in result.final_output, result.final_output
    streamed = Runner.run_streamed(agent, "هوا در تهران چطور است؟")
    kinds = {event.type async for event in streamed.stream_events()}
    assert "run_item_stream_event" in kinds, kinds
    assert "21 °C" in streamed.final_output
    session = SQLiteSession("one")
    plain = Agent(name="plain", model=MODEL)
    await Runner.run(plain, "سلام", session=session)
    again = await Runner.run(plain, "و دوباره", session=session)
    assert again.final_output == "echo: و دوباره", again.final_output
    chained = await Runner.run(plain, "سوم", previous_response_id=again.last_response_id)
    assert chained.final_output == "echo: سوم"


asyncio.run(main())
print("done")
