"""Check pydantic-ai with its default model class for `openai:`: a tool over two turns, a stream, and typed output."""

import os

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models import infer_model
from pydantic_ai.providers.openai import OpenAIProvider

client = AsyncOpenAI(base_url=os.environ["VILIX_URL"], api_key=os.environ["VILIX_API_KEY"], max_retries=0)
name = f"openai:{os.environ['VILIX_MODEL']}"
model = infer_model(name, provider_factory=lambda _: OpenAIProvider(openai_client=client))
assert "Responses" in type(model).__name__, type(model)


class City(BaseModel):
    """A city."""

    city: str


agent = Agent(model, instructions="Be brief.")


@agent.tool_plain
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"{city}: 21 °C"


result = agent.run_sync("هوا در تهران چطور است؟")
assert "21 °C" in result.output, result.output
again = Agent(model).run_sync("و دوباره", message_history=result.all_messages())
assert again.output == "echo: و دوباره", again.output
typed = Agent(model, output_type=City).run_sync("Which city?")
assert typed.output.city == "تهران", typed.output
print("done")
