curl __BASE_URL__/usage -H "Authorization: Bearer $VILIX_API_KEY"
