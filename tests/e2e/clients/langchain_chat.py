"""Check LangChain's chat model: a response, a stream, and a tool over two turns.

This is a program of its own, because LangChain has an environment of its own.
"""

import os

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


@tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"{city}: 21 °C"


class City(BaseModel):
    """A city."""

    name: str


def model(name: str) -> ChatOpenAI:
    """Return a chat model of the stack."""
    return ChatOpenAI(model=name, base_url=os.environ["VILIX_URL"], api_key=os.environ["VILIX_API_KEY"], max_retries=0)


thinking = model("replay-thinking")
question = HumanMessage("هوا در تهران چطور است؟")
with_tools = thinking.bind_tools([get_weather])
call = with_tools.invoke([question])
assert [made["args"] for made in call.tool_calls] == [{"city": "تهران"}], call
result = ToolMessage(get_weather.invoke(call.tool_calls[0]["args"]), tool_call_id=call.tool_calls[0]["id"])
response = with_tools.invoke([question, call, result])
assert response.content
assert not response.tool_calls, response

streamed = list(thinking.stream([HumanMessage("سلام")]))
assert len(streamed) > 10
assert "معکوس" in "".join(str(chunk.content) for chunk in streamed)
assert thinking.invoke([HumanMessage("سلام")]).usage_metadata["output_tokens"] > 0

city = ChatOpenAI(
    model="smollm2-135m",
    base_url=os.environ["VILIX_URL"],
    api_key=os.environ["VILIX_API_KEY"],
    max_tokens=200,
    temperature=0,
).with_structured_output(City, method="json_schema")
assert isinstance(city.invoke("Name the capital of France."), City)
print("done")
