import os

from openai import OpenAI

client = OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)

answer = client.chat.completions.create(
    model="__STRUCTURED_MODEL__",
    messages=[
        {"role": "user", "content": "{{این نظر چطور است: «عالی بود!»||How is this review: Excellent!}}"},
    ],
    extra_body={
        "guided_choice": ["{{مثبت||positive}}", "{{منفی||negative}}"],
        "chat_template_kwargs": {"enable_thinking": False},
    },
)
print(answer.choices[0].message.content)
