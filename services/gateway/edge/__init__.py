"""The HTTP protocol of the gateway: framing, deadlines, bodies, access log, client disconnects, and the admin listener."""
