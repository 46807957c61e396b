import json
import os

from openai import OpenAI

client = OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)

schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
answer = client.chat.completions.create(
    model="__STRUCTURED_MODEL__",
    messages=[{"role": "user", "content": "{{سارا ۲۷ ساله است.||Sara is 27 years old.}}"}],
    response_format={
        "type": "json_schema",
        "json_schema": {"name": "person", "schema": schema, "strict": True},
    },
)
person = json.loads(answer.choices[0].message.content)
print(person["name"], person["age"])
