curl __BASE_URL__/embeddings \
  -H "Authorization: Bearer $VILIX_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "__EMBEDDING_MODEL__",
    "input": "{{کدام پل در اصفهان است؟||Which river runs through the capital of England?}}",
    "input_type": "query",
    "truncate": true
  }'
