curl __BASE_URL__/chat/completions \
  -H "Authorization: Bearer $VILIX_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{
    "model": "__STRUCTURED_MODEL__",
    "messages": [{"role": "user", "content": "{{سارا ۲۷ ساله است.||Sara is 27 years old.}}"}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": {
      "type": "object",
      "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 120}
      },
      "required": ["name", "age"],
      "additionalProperties": false
    }}}
  }'
