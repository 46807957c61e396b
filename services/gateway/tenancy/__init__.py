"""Keys, limits, reservations and usage of tenants."""
