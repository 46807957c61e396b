import os

from openai import OpenAI

client = OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)

stream = client.chat.completions.create(
    model="__MODEL__",
    messages=[
        {"role": "user", "content": "{{از یک تا پنج بشمار.||Count from one to five.}}"},
    ],
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
