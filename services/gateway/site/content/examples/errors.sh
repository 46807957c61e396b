curl -i __BASE_URL__/chat/completions \
  -H "Authorization: Bearer $VILIX_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"model": "no-such-model", "messages": [{"role": "user", "content": "{{سلام||Hello}}"}]}'
