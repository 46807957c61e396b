import base64
import os
from pathlib import Path

from openai import OpenAI

client = OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)

photo = base64.b64encode(Path("photo.jpg").read_bytes()).decode()
answer = client.chat.completions.create(
    model="__VISION_MODEL__",
    messages=[
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "{{در این عکس چه می‌بینی؟||What do you see in this picture?}}"},
                {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{photo}"}},
            ],
        }
    ],
)
print(answer.choices[0].message.content)
