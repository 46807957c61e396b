"""LiteLLM, which calls Anthropic's API for callers of OpenAI's, and passes on Anthropic's own."""

import asyncio
import os

# Otherwise it fetches prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

model = f"anthropic/{os.environ['VILIX_MODEL']}"
service = {"api_base": os.environ["VILIX_URL"], "api_key": os.environ["VILIX_API_KEY"]}
question = [{"role": "user", "content": "Run a command"}]
bash = {"name": "Bash", "description": "Run a command", "parameters": {"type": "object", "properties": {}}}

answer = litellm.completion(
    model=model, messages=question, tools=[{"type": "function", "function": bash}], max_tokens=1024, **service
)
assert answer.choices[0].message.tool_calls[0].function.name == "Bash"
chunks = list(litellm.completion(model=model, messages=question, max_tokens=1024, stream=True, **service))
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def passed_on() -> None:
    """Check what is passed on without translation."""
    message = await litellm.anthropic_messages(model=model, messages=question, max_tokens=1024, **service)
    assert message["type"] == "message"
    stream = await litellm.anthropic_messages(model=model, messages=question, max_tokens=1024, stream=True, **service)
    passed = b"".join([event if isinstance(event, bytes) else event.encode() async for event in stream]).decode()
    assert passed.index("event: message_start") < passed.index("text_delta") < passed.index("event: message_stop")


asyncio.run(passed_on())
print("done")
