curl __BASE_URL__/chat/completions \
  -H "Authorization: Bearer $VILIX_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "__STRUCTURED_MODEL__",
    "messages": [{"role": "user", "content": "{{این نظر چطور است: «عالی بود!»||How is this review: Excellent!}}"}],
    "guided_choice": ["{{مثبت||positive}}", "{{منفی||negative}}"],
    "chat_template_kwargs": {"enable_thinking": false}
  }'
