curl __BASE_URL__/chat/completions \
  -H "Authorization: Bearer $VILIX_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "__TOOLS_MODEL__",
    "messages": [{"role": "user", "content": "{{هوای تهران چطور است؟||How is the weather in Tehran?}}"}],
    "tools": [{
      "type": "function",
      "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
      }
    }]
  }'
