curl __BASE_URL__/embeddings \
  -H "Authorization: Bearer $VILIX_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "__EMBEDDING_MODEL__",
    "input": [
      "{{گربه روی فرش خوابیده است.||The cat sleeps on the rug.}}",
      "{{پیشی دارد چرت می‌زند.||A kitty is taking a nap.}}"
    ]
  }'
