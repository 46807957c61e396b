from __future__ import annotations

import pytest

from services.gateway.cleanup import Cleanup


def test_all_callbacks_are_called_once_and_the_last_one_first() -> None:
    called: list[int] = []

    def fail() -> None:
        called.append(2)
        raise ValueError("failed")

    cleanup = Cleanup()
    cleanup.callback(called.append, 1)
    cleanup.callback(fail)
    cleanup.callback(called.append, 3)
    with pytest.raises(ValueError, match="failed"), cleanup:
        called.append(0)
    assert called == [0, 3, 2, 1]
    with cleanup:
        pass
    assert called == [0, 3, 2, 1]
