curl __BASE_URL__/chat/completions \
  -H "Authorization: Bearer $VILIX_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "__REASONING_MODEL__",
    "reasoning_effort": "none",
    "messages": [{"role": "user", "content": "{{۱۷ ضرب در ۲۳ چند می‌شود؟||What is 17 times 23?}}"}]
  }'
