import os

from openai import OpenAI

client = OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)

answer = client.chat.completions.create(
    model="__MODEL__",
    messages=[
        {"role": "user", "content": "{{پایتخت ایران کجاست؟||What is the capital of Iran?}}"},
    ],
)
print(answer.choices[0].message.content)
