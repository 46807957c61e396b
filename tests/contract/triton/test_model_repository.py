"""A model directory works in NVIDIA's container, without this distribution."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from services.inference.weights.model_repository import write_model


def test_the_copy_needs_only_the_standard_library_and_numpy(tmp_path: Path) -> None:
    model = write_model(tmp_path, model_id="m", engine="replay", engine_args={})
    program = (
        f"import sys; sys.path[:0] = [{str(model / '1')!r}]\n"
        "import services.inference.triton_backend.engines.replay as replay\n"
        "ours = {m.__file__ for n, m in sys.modules.items() if n.startswith('services') and m.__file__}\n"
        f"assert all(path.startswith({str(model)!r}) for path in ours), ours\n"
        "files = {n.split('.')[0]: getattr(m, '__file__', '') or '' for n, m in sys.modules.items()}\n"
        "third = {name for name, file in files.items() if 'site-packages' in file}\n"
        "assert third <= {'numpy'}, third\n"
    )
    # -S and an empty path: nothing of this distribution can be imported by accident.
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, cwd=tmp_path)
