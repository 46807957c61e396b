import os

from openai import OpenAI

client = OpenAI(
    base_url="__BASE_URL__",
    api_key=os.environ["VILIX_API_KEY"],
)


def embed(texts: list[str], input_type: str) -> list[list[float]]:
    answer = client.embeddings.create(
        model="__EMBEDDING_MODEL__", input=texts, extra_body={"input_type": input_type}
    )
    return [item.embedding for item in answer.data]


documents = [
    "{{آب در صد درجه به جوش می‌آید.||Water boils at a hundred degrees.}}",
    "{{سی‌وسه‌پل روی زاینده‌رود ساخته شده است.||The Thames flows through London.}}",
    "{{پنگوئن‌ها پرواز نمی‌کنند.||Penguins do not fly.}}",
]
passages = embed(documents, "passage")
[question] = embed(["{{کدام پل در اصفهان است؟||Which river runs through the capital of England?}}"], "query")


def similarity(index: int) -> float:
    return sum(x * y for x, y in zip(question, passages[index]))


best = max(range(len(documents)), key=similarity)
print(documents[best])
