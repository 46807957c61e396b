"""The HTTP layer of the gateway: framing, deadlines, bodies, the access log, and the admin API's listener."""
