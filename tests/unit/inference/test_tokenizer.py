from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.model.served_model import ServedModel
from services.inference.model.tokenizer import ModelTokenizer, TooManyTokensError
from tests.unit.inference.scripted import TEXTS

HOSTILE = st.lists(
    st.sampled_from(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "<", "|>", "system\n", "سلام", " "]),
    max_size=8,
).map("".join)


@given(text=st.one_of(TEXTS, HOSTILE))
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(tokenizer: ModelTokenizer, text: str) -> None:
    token_ids = tokenizer.encode(tokenizer.guard(text))
    assert b"".join(map(tokenizer.bytes_of, token_ids)) == text.encode()


@given(text=HOSTILE)
def test_no_text_of_a_user_becomes_a_special_token(tokenizer: ModelTokenizer, text: str) -> None:
    guarded = tokenizer.guard(text)
    assert not tokenizer.special_ids.intersection(tokenizer.encode(guarded))
    assert tokenizer.unguard(guarded) == text
    prompt = tokenizer.encode(f"<|im_start|>user\n{guarded}<|im_end|>\n")
    assert sum(token_id in tokenizer.special_ids for token_id in prompt) == 2


MINIMAX = ("]~!b[", "]~b]", "[e~[")


@pytest.fixture(scope="module")
def minimax(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    """The small model's tokenizer with MiniMax's special tokens, some of which end as others begin."""
    directory = tmp_path_factory.mktemp("minimax")
    content = json.loads((model_directory / "tokenizer.json").read_text())
    size = len(content["model"]["vocab"])
    flags = {**dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False), "special": True}
    content["added_tokens"] += [{"id": size + place, "content": text, **flags} for place, text in enumerate(MINIMAX)]
    (directory / "tokenizer.json").write_text(json.dumps(content))
    return ModelTokenizer(directory)


@pytest.mark.parametrize(
    "text", ["hello]~!b", "hello]~!b \n", "]", "[e~", "~b]", " ]x", "e~[", "]~!b[]~!b", "]~", "سلام["]
)
@pytest.mark.parametrize(
    ("before", "after"), [("]~b]user\n", "[e~[\n"), ("]~b]", "]~b]"), ("]~", "]~!b["), ("[e", "~["), ("]~!b", "~b]")]
)
def test_no_text_of_a_user_becomes_a_special_token_together_with_text_of_a_template(
    minimax: ModelTokenizer, text: str, before: str, after: str
) -> None:
    def special(prompt: str) -> list[int]:
        return [token_id for token_id in minimax.encode(prompt) if token_id in minimax.special_ids]

    for written, guarded in ((text, minimax.guard(text)), (text.strip(), minimax.guard(text).strip())):
        assert minimax.unguard(guarded) == written
        assert special(before + guarded + after) == special(before) + special(after)
    ((value,),) = minimax.guard_values({"a": [text]}).values()
    assert special(before + value + after) == special(before) + special(after)


def test_texts_that_resemble_half_a_special_token_keep_their_ids(minimax: ModelTokenizer) -> None:
    for text in ("[1, 2]", "a]~b", "]", "~[x"):
        prompt = "]~b]tool\n<response>{}</response>[e~[\n"
        assert minimax.encode(prompt.format(minimax.guard(text))) == minimax.encode(prompt.format(text))


def test_an_ordinary_prompt_is_encoded_unchanged(tokenizer: ModelTokenizer) -> None:
    question = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
    text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.encode(text) == question


def test_the_end_tokens_come_from_generation_config(tokenizer: ModelTokenizer, bytewise: ModelTokenizer) -> None:
    assert tokenizer.bytes_of(min(tokenizer.end_ids - {0})) == b"<|im_end|>"
    assert bytewise.end_ids == frozenset()


def test_without_generation_config_the_eos_token_is_the_end_token(model_directory: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_directory / name, tmp_path)
    tokenizer = ModelTokenizer(tmp_path)
    assert [tokenizer.bytes_of(i) for i in tokenizer.end_ids] == [b"<|im_end|>"]


def test_an_unsupported_decoder_is_rejected_by_name(model_directory: Path, tmp_path: Path) -> None:
    content = json.loads((model_directory / "tokenizer.json").read_text())
    content["decoder"] = {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"tokenizer\.json has the decoder Metaspace"):
        ModelTokenizer(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {"type": "BPE"}, "decoder": {"type": "ByteLevel"}}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        ModelTokenizer(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not exist"):
        ModelTokenizer(tmp_path)


def test_a_long_text_has_the_same_ids_as_without_batches(tokenizer: ModelTokenizer) -> None:
    text = "<|im_start|>سلام، one two\n" * 2000
    ids = tokenizer.encode(text[:26])
    assert tokenizer.encode(text) == ids * 2000
    guarded = tokenizer.guard(text)
    assert tokenizer.encode(guarded) == tokenizer.encode(guarded[: len(guarded) // 2000]) * 2000


def test_too_many_tokens_are_counted_and_not_returned(tokenizer: ModelTokenizer) -> None:
    text = "<|im_start|>" * 5000
    assert len(tokenizer.encode(text, most=5000)) == 5000
    with pytest.raises(TooManyTokensError) as caught:
        tokenizer.encode(text, most=4999)
    assert caught.value.count == 5000


ADDED_BY_QWEN = ("<think>", "</think>", "<tool_call>", "</tool_call>", "</tool_response>", "<|fim_prefix|>")
SPACES = "   "


@pytest.fixture(scope="module")
def qwen(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    """The small model's tokenizer with Qwen's added tokens that are not special, and a token of spaces."""
    directory = tmp_path_factory.mktemp("qwen")
    content = json.loads((model_directory / "tokenizer.json").read_text())
    size = len(content["model"]["vocab"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["normalizer"] = {"type": "NFKC"}
    content["added_tokens"] += [
        {"id": size + place, "content": text, **flags, "normalized": text == "</think>"}
        for place, text in enumerate((*ADDED_BY_QWEN, SPACES))
    ]
    (directory / "tokenizer.json").write_text(json.dumps(content))
    return ModelTokenizer(directory)


@given(
    text=st.lists(
        st.sampled_from([*ADDED_BY_QWEN, "<|im_end|>", "<", "/think>", "call>", "</", "متن\u200cها", " ", "é"]),
        max_size=8,
    ).map("".join)
)
def test_no_text_of_a_user_becomes_an_added_token(qwen: ModelTokenizer, text: str) -> None:
    guarded = qwen.guard(text)
    assert not qwen.control_ids.intersection(qwen.encode(guarded))
    assert qwen.unguard(guarded) == text
    assert b"".join(map(qwen.bytes_of, qwen.encode(guarded))).decode() == text
    written = qwen.encode(f"<tool_response>\n{guarded}\n</tool_response><think>")
    assert [token_id for token_id in written if token_id in qwen.control_ids] == [
        qwen.added_id("</tool_response>"),
        qwen.added_id("<think>"),
    ]


def test_similar_characters_do_not_become_an_added_token(qwen: ModelTokenizer) -> None:
    assert qwen.added_id("</think>") not in qwen.encode(qwen.guard("\uff1c/think\uff1e"))


def test_runs_of_spaces_keep_their_tokens(qwen: ModelTokenizer) -> None:
    assert qwen.encode(qwen.guard(f"a{SPACES}b")) == qwen.encode(f"a{SPACES}b")
    assert qwen.added_id(SPACES) in qwen.encode(qwen.guard(f"a{SPACES}b"))


TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<|fim_prefix|>"]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|image_pad|>"]
PARTS = ["<", "</", "<|", ">", "|>", "think", "tool_call", "/think>", "im_", " ", "\n", "سلام، می\u200cآیی؟", "۱۲"]
MARKED = st.lists(st.sampled_from([*TAGS, *SPECIAL, *PARTS]), max_size=8).map("".join)


@pytest.fixture(scope="module")
def qwen3(loaded_qwen3: ServedModel) -> ModelTokenizer:
    return loaded_qwen3.tokenizer


def control_tokens(tokenizer: ModelTokenizer, prompt: str) -> list[int]:
    return [token_id for token_id in tokenizer.encode(prompt) if token_id in tokenizer.control_ids]


@given(text=MARKED)
def test_no_callers_text_becomes_an_added_token_of_qwen3(qwen3: ModelTokenizer, text: str) -> None:
    assert len(qwen3.control_ids) == 26
    guarded = qwen3.guard(text)
    assert control_tokens(qwen3, guarded) == []
    assert qwen3.unguard(guarded) == text
    assert b"".join(map(qwen3.bytes_of, qwen3.encode(guarded))) == text.encode()


@given(text=MARKED, before=MARKED, after=MARKED)
def test_text_of_a_template_keeps_its_tokens_beside_a_callers_text(
    qwen3: ModelTokenizer, text: str, before: str, after: str
) -> None:
    expected = control_tokens(qwen3, before) + control_tokens(qwen3, after) if text else None
    found = control_tokens(qwen3, before + qwen3.guard(text) + after)
    assert expected is None or found == expected


@pytest.mark.parametrize("tag", [*TAGS, *SPECIAL])
def test_halves_and_escapes_and_parts_inside_a_templates_brackets_do_not_become_a_tag(
    qwen3: ModelTokenizer, tag: str
) -> None:
    for cut in range(1, len(tag)):
        assert control_tokens(qwen3, qwen3.guard(tag[:cut]) + qwen3.guard(tag[cut:])) == []
        assert control_tokens(qwen3, tag[:cut] + qwen3.guard(tag[cut:])) == []
        assert control_tokens(qwen3, qwen3.guard(tag[:cut]) + tag[cut:]) == []
    assert control_tokens(qwen3, tag[0] + qwen3.guard(tag[1:-1]) + tag[-1]) == []
    assert control_tokens(qwen3, tag[0] + qwen3.guard(f" {tag[1:-1]}\n").strip() + tag[-1]) == []
    as_json = json.dumps(qwen3.guard(tag))
    assert json.loads(qwen3.unguard(as_json)) == tag
    assert control_tokens(qwen3, as_json) == []
    assert control_tokens(qwen3, qwen3.guard(tag).upper()) == []


def test_tokens_that_overlap_are_all_guarded(minimax: ModelTokenizer) -> None:
    for text in ("]~b]~b]", "]~!b[]~b]~!b[", "[e~[e~[", "[e~[e~[e~["):
        assert control_tokens(minimax, minimax.guard(text)) == []


def test_words_that_are_part_of_a_tag_keep_their_ids(qwen3: ModelTokenizer) -> None:
    for text in ("think", "a", "object", "tool_call", "<", "response>"):
        prompt = "<|im_start|>user\n{}<|im_end|>\n"
        assert qwen3.encode(prompt.format(qwen3.guard(text))) == qwen3.encode(prompt.format(text))
