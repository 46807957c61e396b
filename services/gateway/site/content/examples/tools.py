import json
import os

from openai import OpenAI

client = OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)


def get_weather(city: str) -> str:
    return json.dumps({"city": city, "celsius": 24, "sky": "clear"}, ensure_ascii=False)


weather = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "{{هوای اکنون یک شهر||The weather in a city right now}}",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
messages = [{"role": "user", "content": "{{هوای تهران چطور است؟||How is the weather in Tehran?}}"}]

while True:
    answer = client.chat.completions.create(
        model="__TOOLS_MODEL__",
        messages=messages,
        tools=[weather],
    )
    message = answer.choices[0].message
    messages.append(message)
    if not message.tool_calls:
        break
    for call in message.tool_calls:
        result = get_weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

print(message.content)
