curl __BASE_URL__/models -H "Authorization: Bearer $VILIX_API_KEY"
