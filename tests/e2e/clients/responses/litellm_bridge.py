"""Check LiteLLM's bridge to the Responses API: chats through it, and responses themselves."""

import os

import litellm

url, key, name = os.environ["VILIX_URL"], os.environ["VILIX_API_KEY"], os.environ["VILIX_MODEL"]
options = {"api_base": url, "api_key": key, "num_retries": 0}
question = [{"role": "user", "content": "سلام"}]
function = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}

chat = litellm.completion(model=f"openai/responses/{name}", messages=question, **options)
assert chat.choices[0].message.content == "echo: سلام", chat
called = litellm.completion(
    model=f"openai/responses/{name}", messages=question, tools=[{"type": "function", "function": function}], **options
)
assert called.choices[0].message.tool_calls[0].function.name == "get_weather", called
chunks = list(litellm.completion(model=f"openai/responses/{name}", messages=question, stream=True, **options))
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "echo: سلام", chunks
response = litellm.responses(model=f"openai/{name}", input="سلام", **options)
assert response.output[-1].content[0].text == "echo: سلام", response
events = list(litellm.responses(model=f"openai/{name}", input="سلام", stream=True, **options))
assert events[-1].type == "response.completed", events[-1]
print("done")
