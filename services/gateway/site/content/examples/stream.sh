curl -N __BASE_URL__/chat/completions \
  -H "Authorization: Bearer $VILIX_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "__MODEL__",
    "stream": true,
    "messages": [{"role": "user", "content": "{{از یک تا پنج بشمار.||Count from one to five.}}"}]
  }'
