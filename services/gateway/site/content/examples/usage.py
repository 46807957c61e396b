import os

from openai import OpenAI

client = OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)

usage = client.get("/usage", cast_to=dict)
print("{{امروز||today}}:", usage["today"]["prompt_tokens"] + usage["today"]["completion_tokens"])
print("{{باقی‌مانده||remaining}}:", usage["remaining"])
