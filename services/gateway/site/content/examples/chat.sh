curl __BASE_URL__/chat/completions \
  -H "Authorization: Bearer $VILIX_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "__MODEL__",
    "messages": [{"role": "user", "content": "{{پایتخت ایران کجاست؟||What is the capital of Iran?}}"}]
  }'
