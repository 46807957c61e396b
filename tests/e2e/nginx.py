"""Real Nginx servers for tests."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.stack.ports import is_free
from tests.support.system_packages import require
from tests.support.waits import block_until

MAIN = """
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
  access_log {directory}/access.log;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  include {directory}/site.conf;
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running Nginx with the configuration file of its site."""

    process: subprocess.Popen[bytes]
    directory: Path

    def reload(self, site: str) -> None:
        """Replace the site. Running streams of the earlier one continue."""
        (self.directory / "site.conf").write_text(site)
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def running_nginx(directory: Path, site: str, *, port: int) -> Iterator[Nginx]:
    """Run an Nginx that serves `site`, which is server blocks, one of which listens on `port`."""
    nginx = require("nginx", package="nginx-light")
    # As root, Nginx would switch to the user nobody, who cannot write to a test's directory.
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(MAIN.format(directory=directory, user=user))
    (directory / "site.conf").write_text(site)
    log = directory / "error.log"
    process = subprocess.Popen([nginx, "-p", directory, "-c", directory / "nginx.conf", "-e", log])
    try:
        block_until(lambda: not is_free(port) or process.poll() is not None, 10, "nginx listens")
        assert process.poll() is None, log.read_text()
        yield Nginx(process, directory)
    finally:
        process.terminate()
        process.wait(10)
