import os

from openai import OpenAI

client = OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)

texts = [
    "{{گربه روی فرش خوابیده است.||The cat sleeps on the rug.}}",
    "{{پیشی دارد چرت می‌زند.||A kitty is taking a nap.}}",
    "{{نرخ ارز بالا رفت.||The exchange rate went up.}}",
]
answer = client.embeddings.create(model="__EMBEDDING_MODEL__", input=texts)
cat, kitty, money = (item.embedding for item in answer.data)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b))
    return dot / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5


print(f"{cosine(cat, kitty):.3f} > {cosine(cat, money):.3f}")
