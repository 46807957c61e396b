import os

from openai import OpenAI

client = OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)

stream = client.chat.completions.create(
    model="__REASONING_MODEL__",
    messages=[
        {"role": "user", "content": "{{۱۷ ضرب در ۲۳ چند می‌شود؟||What is 17 times 23?}}"},
    ],
    stream=True,
)
for chunk in stream:
    delta = chunk.choices[0].delta
    if reasoning := getattr(delta, "reasoning_content", None):
        print(f"\033[2m{reasoning}\033[0m", end="", flush=True)
    if delta.content:
        print(delta.content, end="", flush=True)
print()
