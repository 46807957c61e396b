curl __BASE_URL__/chat/completions \
  -H "Authorization: Bearer $VILIX_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "__MODEL__",
    "max_tokens": 200,
    "messages": [
      {"role": "system", "content": "{{کوتاه و روشن پاسخ بده.||Answer briefly and plainly.}}"},
      {"role": "user", "content": "{{سه میوه نام ببر.||Name three fruits.}}"},
      {"role": "assistant", "content": "{{سیب، انار و انجیر.||Apples, pomegranates and figs.}}"},
      {"role": "user", "content": "{{کدام‌یک شیرین‌تر است؟||Which one is the sweetest?}}"}
    ]
  }'
