import os

import openai

client = openai.OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
    max_retries=4,
)

try:
    client.chat.completions.create(
        model="no-such-model",
        messages=[{"role": "user", "content": "{{سلام||Hello}}"}],
    )
except openai.RateLimitError as error:
    print("{{باید صبر کرد||Wait}}:", error.response.headers.get("retry-after"))
except openai.APIStatusError as error:
    print(error.status_code, error.code, error.body["message"])
    print("{{شناسهٔ درخواست||request id}}:", error.request_id)
