"""The settings of the gateway that these tests exceed."""

from __future__ import annotations

HEADER_SECONDS, BODY_SECONDS, WRITE_SECONDS = 2.0, 2.0, 2.0
MAX_CONNECTIONS = 400

SETTINGS = {
    "VILIX_HEADER_SECONDS": f"{HEADER_SECONDS}",
    "VILIX_BODY_SECONDS": f"{BODY_SECONDS}",
    "VILIX_WRITE_SECONDS": f"{WRITE_SECONDS}",
    "VILIX_MAX_CONNECTIONS": f"{MAX_CONNECTIONS}",
    "VILIX_MAX_BODY_BYTES": "1000000",
}
