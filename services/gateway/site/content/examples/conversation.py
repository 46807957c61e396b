import os

from openai import OpenAI

client = OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)

messages = [
    {"role": "system", "content": "{{کوتاه و روشن پاسخ بده.||Answer briefly and plainly.}}"},
    {"role": "user", "content": "{{سه میوه نام ببر.||Name three fruits.}}"},
]
for question in ["{{کدام‌یک شیرین‌تر است؟||Which one is the sweetest?}}", None]:
    answer = client.chat.completions.create(
        model="__MODEL__",
        messages=messages,
        max_tokens=200,
    )
    text = answer.choices[0].message.content
    print(text)
    messages.append({"role": "assistant", "content": text})
    if question:
        messages.append({"role": "user", "content": question})
