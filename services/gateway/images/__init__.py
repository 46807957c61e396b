"""Images in requests: data URLs, fetching, and limits."""
