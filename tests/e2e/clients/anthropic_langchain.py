"""LangChain's ChatAnthropic: answers, streams and tools."""

import os

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool


@tool
def Bash(command: str, description: str = "") -> str:  # noqa: N802  # the name of the recorded call
    """Run a command."""
    return "AGENT-REPLAY"


chat = ChatAnthropic(
    model=os.environ["VILIX_MODEL"],
    base_url=os.environ["VILIX_URL"],
    api_key=os.environ["VILIX_API_KEY"],
    max_tokens=1024,
    max_retries=0,
)
with_tools = chat.bind_tools([Bash])
messages = [HumanMessage("Run a command")]
answer = with_tools.invoke(messages)
(call,) = answer.tool_calls
assert call["name"] == "Bash"
messages += [answer, ToolMessage(Bash.invoke(call["args"]), tool_call_id=call["id"])]
assert "AGENT-REPLAY" in with_tools.invoke(messages).text
chunks = list(with_tools.stream(messages))
assert "AGENT-REPLAY" in "".join(chunk.text for chunk in chunks)
assert answer.usage_metadata["input_tokens"] > 0
print("done")
