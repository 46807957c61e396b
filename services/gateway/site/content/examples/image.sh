curl __BASE_URL__/chat/completions \
  -H "Authorization: Bearer $VILIX_API_KEY" \
  -H "Content-Type: application/json" \
  -d @- <<JSON
{
  "model": "__VISION_MODEL__",
  "messages": [{"role": "user", "content": [
    {"type": "text", "text": "{{در این عکس چه می‌بینی؟||What do you see in this picture?}}"},
    {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,$(base64 -w0 photo.jpg)"}}
  ]}]
}
JSON
