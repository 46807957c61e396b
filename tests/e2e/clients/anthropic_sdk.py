"""Anthropic's Python SDK: whole messages, streams with text, thinking and tools, counts, models and errors by class."""

import os

import anthropic

client = anthropic.Anthropic(base_url=os.environ["VILIX_URL"], api_key=os.environ["VILIX_API_KEY"], max_retries=0)
model = os.environ["VILIX_MODEL"]
question = {"role": "user", "content": "Run a command"}
bash = {"name": "Bash", "description": "Run a command", "input_schema": {"type": "object"}}

# Whole, with tools: the call and the answer to its result.
message = client.messages.create(
    model=model, max_tokens=20_000, messages=[question], tools=[bash], thinking={"type": "adaptive"}
)
assert [block.type for block in message.content] == ["thinking", "tool_use"], message
assert message.stop_reason == "tool_use"
assert message._request_id
call = message.content[1]
assert call.input["command"].startswith("echo ")
result = {"type": "tool_result", "tool_use_id": call.id, "content": "AGENT-REPLAY"}
turns = [question, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
message = client.messages.create(model=model, max_tokens=1024, messages=turns, tools=[bash])
assert "AGENT-REPLAY" in message.content[-1].text
assert message.usage.output_tokens > 0

# Streams, accumulated by the SDK.
with client.messages.stream(
    model=model, max_tokens=1024, messages=[question], tools=[bash], thinking={"type": "adaptive"}
) as stream:
    kinds = [event.type for event in stream]
    message = stream.get_final_message()
assert kinds[0] == "message_start"
assert kinds[-1] == "message_stop"
assert "signature" in kinds
assert message.content[0].thinking
assert message.content[0].signature
assert message.content[1].input["command"].startswith("echo ")
with client.messages.stream(model=model, max_tokens=1024, messages=turns, tools=[bash]) as stream:
    text = "".join(stream.text_stream)
assert "AGENT-REPLAY" in text

# The beta interface sends further headers and `?beta=true`.
message = client.beta.messages.create(
    model=model, max_tokens=1024, messages=turns, betas=["never-heard-of-2027-01-01"], extra_body={"temperature": 0.5}
)
assert message.stop_reason == "end_turn"

counted = client.messages.count_tokens(model=model, messages=turns, tools=[bash])
assert counted.input_tokens > 10
assert model in [each.id for each in client.models.list(limit=1000)]
assert client.models.retrieve(model).type == "model"

for fields, key, expected in (
    ({"model": "nothing"}, None, anthropic.NotFoundError),
    ({"temperature": 99}, None, anthropic.BadRequestError),
    ({}, "vlx_nobody", anthropic.AuthenticationError),
):
    caller = client if key is None else client.with_options(api_key=key)
    extra = {name: value for name, value in fields.items() if name != "model"}
    try:
        caller.messages.create(model=fields.get("model", model), max_tokens=9, messages=[question], extra_body=extra)
    except anthropic.APIStatusError as error:
        assert type(error) is expected, error
        assert error.body["type"] == "error"
        assert error.request_id
    else:
        raise AssertionError(expected)
print("done")
