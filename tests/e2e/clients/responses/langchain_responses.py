"""Check LangChain's chat model over the Responses API: a tool over two turns, a stream, and a stored conversation."""

import os

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"{city}: 21 °C"


url, key, name = os.environ["VILIX_URL"], os.environ["VILIX_API_KEY"], os.environ["VILIX_MODEL"]
model = ChatOpenAI(model=name, base_url=url, api_key=key, max_retries=0, use_responses_api=True)
question = HumanMessage("هوا در تهران چطور است؟")
with_tools = model.bind_tools([get_weather])
call = with_tools.invoke([question])
assert [made["args"] for made in call.tool_calls] == [{"city": "تهران"}], call
result = ToolMessage(get_weather.invoke(call.tool_calls[0]["args"]), tool_call_id=call.tool_calls[0]["id"])
response = with_tools.invoke([question, call, result])
assert "21 °C" in response.text, response
streamed = list(model.stream([HumanMessage("سلام دنیا")]))
assert "".join(chunk.text for chunk in streamed) == "echo: سلام دنیا", streamed
chained = ChatOpenAI(
    model=name, base_url=url, api_key=key, max_retries=0, use_responses_api=True, use_previous_response_id=True
)
first = chained.invoke([HumanMessage("سلام")])
second = chained.invoke([HumanMessage("سلام"), first, HumanMessage("و دوباره")])
assert second.text == "echo: و دوباره", second
print("done")
