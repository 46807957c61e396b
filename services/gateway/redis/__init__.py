"""The connection to Redis (or Valkey): timeouts, circuit breaker, pipelining, and a watch on its configuration."""
