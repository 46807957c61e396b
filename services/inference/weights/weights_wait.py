"""`python -m services.inference.weights.weights_wait`: wait until weights are there, before a server reads them.

The pod that serves a model does not download: it has no connection to the internet.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Final

from pydantic import Field

from services.inference.weights.revision import COMPLETE
from services.runtime import settings as settings_module
from services.runtime.settings import Settings
from services.runtime.telemetry import configure_logging

REMINDER_SECONDS: Final = 60.0
"""Time between two lines about the wait."""
_log: Final = logging.getLogger(__name__)


class WaitSettings(Settings):
    """Waits until a download of weights is complete, or checks that a volume has a directory."""

    directory: Path = Field(description="The directory of the weights.")
    downloaded_by: str = Field(
        "", description="What downloads the weights, such as job/NAME. Without it, the directory must exist already."
    )
    poll_seconds: float = Field(5.0, gt=0, description="Time between two looks.")


def main() -> None:
    """Wait, or exit with 1 and a line that says what is missing."""
    settings = settings_module.load(WaitSettings, command="services.inference.weights.weights_wait")
    configure_logging("weights")
    if settings.downloaded_by:
        _wait(settings)
    elif not settings.directory.is_dir():
        parent = settings.directory.parent
        names = ", ".join(sorted(path.name for path in parent.iterdir())) if parent.is_dir() else ""
        print(
            f"error: the volume has no directory {settings.directory.name}; it has {names or 'nothing'}. "
            "weights.path of the chart names the directory",
            file=sys.stderr,
        )
        raise SystemExit(1)


def _wait(settings: WaitSettings) -> None:
    reminded = 0.0
    while not (settings.directory / COMPLETE).is_file():
        now = time.monotonic()
        if not reminded or now - reminded >= REMINDER_SECONDS:
            reminded = now
            _log.info("waiting until %s has downloaded %s", settings.downloaded_by, settings.directory.name)
        time.sleep(settings.poll_seconds)
    _log.info("%s is complete", settings.directory.name)


if __name__ == "__main__":
    main()
