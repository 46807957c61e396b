"""Certificates for tests, issued by a temporary CA."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.support.system_packages import require


class Authority:
    """A CA that openssl creates."""

    def __init__(self, directory: Path) -> None:
        """Create the CA in `directory`."""
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._openssl(
            "req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.crt", "-days", "1", "-subj", "/CN=test CA"
        )

    @property
    def certificate(self) -> Path:
        return self._directory / "ca.crt"

    def issue(self, into: Path, *, name: str, days: int = 1) -> None:
        """Write ca.crt, tls.crt and tls.key for `name` to `into` as Kubernetes does: by replacing one symbolic link."""
        into.mkdir(parents=True, exist_ok=True)
        data = Path(tempfile.mkdtemp(prefix="..", dir=into))
        extensions = self._directory / "extensions"
        extensions.write_text(f"subjectAltName=DNS:{name}\n")
        self._openssl("req", *_KEY, "-keyout", data / "tls.key", "-out", "request", "-subj", f"/CN={name}")
        authority = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", extensions)
        self._openssl("x509", "-req", "-in", "request", *authority, "-days", str(days), "-out", data / "tls.crt")
        (data / "ca.crt").write_bytes(self.certificate.read_bytes())
        link = into / "..new"
        link.symlink_to(data.name)
        link.rename(into / "..data")
        for file in ("ca.crt", "tls.crt", "tls.key"):
            if not (into / file).is_symlink():
                (into / file).symlink_to(f"..data/{file}")

    def _openssl(self, *arguments: str | Path) -> None:
        openssl = require("openssl", package="openssl")
        subprocess.run([openssl, *arguments], cwd=self._directory, check=True, capture_output=True, timeout=30)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
