"""Requests with images, up to the request to the engine."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from tokenizers import AddedToken, Tokenizer
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.answer_parser import AnswerParser
from services.inference.generation.choice_requests import ChoiceRequests
from services.inference.model.catalog import load_model
from services.inference.model.chat_template import ChatTemplate
from services.inference.model.served_model import EngineDescription, ServedModel
from services.inference.parsing.segments import Reasoning, Text
from services.inference.request.images import ImageLimits
from services.inference.request.prompt import render
from services.inference.request.request_checks import RequestLimits, check
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from tests.support.pictures import encoded
from tests.support.repository import ROOT
from tests.support.vision_template import TEMPLATE
from tests.unit.inference.scripted import PARAMETERS, ScriptedTriton

SEEING = PARAMETERS | {"images", "image_sizes"}
LIMITS = RequestLimits(images=ImageLimits(max_pixels=1_000_000, max_total_pixels=1_500_000), max_prompt_bytes=200)
WIDE, TALL = encoded("PNG", 640, 480), encoded("JPEG", 480, 960)


@pytest.fixture(scope="session")
def vision_directory(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    """SmolLM2's tokenizer with Qwen's placeholders."""
    directory = tmp_path_factory.mktemp("vision")
    tokenizer = Tokenizer.from_file(str(model_directory / "tokenizer.json"))
    marks = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return directory


@pytest.fixture(scope="module")
def loaded_seer(vision_directory: Path) -> ServedModel:
    return ServedModel.load(load_model("qwen3-vl"), vision_directory)


@pytest.fixture
def vision_model(loaded_seer: ServedModel) -> ServedModel:
    engine = EngineDescription("scripted", "1", SEEING, context_length=4096, slots=4)
    return dataclasses.replace(loaded_seer, description=engine)


def text(content: str) -> pb.ContentPart:
    return pb.ContentPart(text=content)


def image(data: bytes, detail: pb.ImageDetail.ValueType = pb.IMAGE_DETAIL_UNSPECIFIED) -> pb.ContentPart:
    return pb.ContentPart(image=pb.Image(data=data, detail=detail))


def user(*parts: pb.ContentPart) -> pb.Message:
    return pb.Message(role=pb.ROLE_USER, content=parts)


def rejection(model: ServedModel, *messages: pb.Message) -> Failure:
    with pytest.raises(Failure) as caught:
        check(pb.GenerateRequest(messages=messages), model, LIMITS)
    return caught.value


TURNS = [
    user(image(WIDE), text("first <|image_pad|>"), image(TALL, pb.IMAGE_DETAIL_LOW)),
    pb.Message(role=pb.ROLE_ASSISTANT, content=[text("I see.")]),
    user(text("and "), image(WIDE)),
]


@pytest.mark.parametrize("entry", ["qwen3-vl", "qwen2.5vl"])
async def test_images_are_numbered_if_requested(vision_model: ServedModel, entry: str) -> None:
    vision_model.spec = load_model(entry)
    # The field is a Struct.
    request = pb.GenerateRequest(messages=TURNS, chat_template_kwargs={"add_vision_id": True})  # type: ignore[arg-type]
    check(request, vision_model, LIMITS)
    prompt = await render(request, vision_model)
    numbered = [f"Picture {number}: <|vision_start|><|image_pad|>" for number in (1, 2, 3)]
    assert [prompt.text.count(one) for one in numbered] == [1, 1, 1]


async def test_the_documented_entry_for_qwen3_vl_always_reasons(vision_model: ServedModel, tmp_path: Path) -> None:
    document = (ROOT / "docs" / "kubernetes.md").read_text()
    values = next(block for block in re.findall(r"```yaml\n(.*?)```", document, re.DOTALL) if "8B-Thinking" in block)
    pool = yaml.safe_load(values)["models"]["qwen3-vl"]
    (tmp_path / "qwen3-vl.yaml").write_text(yaml.safe_dump({"id": "qwen3-vl", **pool["catalog"]}))
    spec, usual = load_model("qwen3-vl", directory=tmp_path), load_model("qwen3-vl")
    assert spec.checkpoint == pool["weights"]["repo"] == usual.checkpoint.replace("Instruct", "Thinking")
    differing = ("checkpoint", "parsers", "sampling", "descriptions")
    assert spec.model_dump(exclude=set(differing)) == usual.model_dump(exclude=set(differing))
    configuration = {"chat_template": TEMPLATE + "{{- '<think>\\n' }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(configuration))
    vision_model = dataclasses.replace(vision_model, spec=spec, template=ChatTemplate(tmp_path))
    request = pb.GenerateRequest(messages=TURNS)
    check(request, vision_model, LIMITS)
    parser = AnswerParser(request, vision_model, await render(request, vision_model))
    assert [*parser.feed("It is a cat.\n</think>\n\nA cat."), *parser.close()] == [
        Reasoning("It is a cat."),
        Text("A cat."),
    ]
    request.reasoning.enabled = False
    with pytest.raises(Failure) as caught:
        check(request, vision_model, LIMITS)
    assert caught.value.message == Message("reasoning_not_optional", field="reasoning.enabled", model="qwen3-vl")


async def test_placeholders_are_at_the_positions_of_their_images(vision_model: ServedModel) -> None:
    request = pb.GenerateRequest(messages=TURNS)
    check(request, vision_model, LIMITS)
    prompt = await render(request, vision_model)
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    assert prompt.text == (
        f"<|im_start|>user\n{mark}first <|image_pad|>{mark}<|im_end|>\n<|im_start|>assistant\nI see.<|im_end|>\n"
        f"<|im_start|>user\nand {mark}<|im_end|>\n<|im_start|>assistant\n"
    )
    # The placeholder that the user wrote is ordinary text.
    assert prompt.token_ids.count(vision_model.tokenizer.added_id("<|image_pad|>") or -1) == 3
    assert [one.data for one in prompt.images] == [WIDE, TALL, WIDE]
    # 480 × 960 pixels are 1.8 times the pixels of 256 tokens.
    assert [(one.size, one.tokens) for one in prompt.images] == [
        ((640, 480), 300),
        ((352, 704), 11 * 22),
        ((640, 480), 300),
    ]
    assert prompt.token_count == len(prompt.token_ids) - 3 + 842
    assert prompt.remaining_tokens == 4096 - prompt.token_count


async def test_the_engine_gets_the_bytes_and_the_sizes(vision_model: ServedModel) -> None:
    triton, request = ScriptedTriton(), pb.GenerateRequest(messages=TURNS)
    prompt = await render(request, vision_model)
    choice = ChoiceRequests(
        triton,  # type: ignore[arg-type]  # a stand-in
        vision_model,
        request,
        prompt,
        choice=0,
        request_id="r",
        on_request=lambda: None,
    )
    async for _ in choice.outputs():
        pass
    (asked,) = triton.requests
    assert asked.images == [WIDE, TALL, WIDE]
    assert asked.params["image_sizes"] == [(640, 480), (352, 704), (640, 480)]
    assert asked.params["max_tokens"] == prompt.remaining_tokens


async def test_image_tokens_count_towards_the_context(vision_model: ServedModel) -> None:
    request = pb.GenerateRequest(messages=TURNS, sampling=pb.SamplingParams(max_tokens=3200))
    vision_model.description = dataclasses.replace(vision_model.engine(), context_length=4000)
    with pytest.raises(Failure) as caught:
        await render(request, vision_model)
    parameters = caught.value.message.parameters
    assert (caught.value.message.id, parameters["requested"], parameters["limit"]) == ("context_exceeded", 3200, 4000)
    assert 800 <= int(parameters["prompt"]) < 900
    assert caught.value.reason is Reason.CONTEXT_LENGTH_EXCEEDED


def test_image_bytes_do_not_count_as_text(vision_model: ServedModel) -> None:
    check(pb.GenerateRequest(messages=[user(image(WIDE + bytes(5000)))]), vision_model, LIMITS)


@pytest.mark.parametrize(
    ("parts", "field", "message"),
    [
        ([image(b"")], 0, Message("image_format_unknown", field="messages[1].content[0].image")),
        ([text("a"), image(WIDE[:18])], 1, Message("image_truncated", field="messages[1].content[1].image")),
        (
            [image(encoded("PNG", 1001, 1000))],
            0,
            Message(
                "image_too_many_pixels",
                field="messages[1].content[0].image",
                format="PNG",
                size="1001×1000",
                value=1001000,
                limit=1000000,
            ),
        ),
        (
            [image(encoded("PNG", 1000, 900, "1"))] * 2,
            1,
            Message(
                "images_too_many_pixels",
                field="messages[1].content[1].image",
                format="PNG",
                size="1000×900",
                value=1800000,
                limit=1500000,
            ),
        ),
        (
            [image(encoded("PNG", 402, 2))],
            0,
            Message("image_too_narrow", field="messages[1].content[0].image", size="402×2", limit=200),
        ),
        (
            [image(encoded("PNG", 2, 2))] * 17,
            16,
            Message(
                "too_many_images_for_model", field="messages[1].content[16].image", value=17, model="qwen3-vl", limit=16
            ),
        ),
    ],
)
def test_an_unsupported_image_is_rejected_with_its_field(
    vision_model: ServedModel, parts: list[pb.ContentPart], field: int, message: Message
) -> None:
    failure = rejection(vision_model, user(text("?")), user(*parts))
    assert failure.reason is Reason.INVALID_ARGUMENT
    assert failure.message.field == f"messages[1].content[{field}].image"
    assert failure.message == message


def test_images_in_messages_of_other_roles_are_rejected(vision_model: ServedModel) -> None:
    for role in (pb.ROLE_SYSTEM, pb.ROLE_ASSISTANT):
        failure = rejection(vision_model, pb.Message(role=role, content=[image(WIDE)]), user(text("?")))
        assert failure.message.id == "image_in_wrong_message"


def test_a_model_supports_vision_only_if_its_engine_accepts_images(
    vision_model: ServedModel, model: ServedModel
) -> None:
    assert vision_model.to_proto().capabilities.vision
    assert vision_model.to_proto().capabilities.max_images == 16
    vision_model.description = dataclasses.replace(vision_model.engine(), supported_parameters=PARAMETERS)
    model.description = dataclasses.replace(model.engine(), supported_parameters=SEEING)
    for blind in (vision_model, model):
        capabilities = blind.to_proto().capabilities
        assert (capabilities.vision, capabilities.max_images) == (False, 0)
        failure = rejection(blind, user(text("?"), image(WIDE)))
        assert failure.reason is Reason.UNSUPPORTED_PARAMETER
        assert failure.message == Message("vision_not_supported", field="messages[0].content[1].image", model=blind.id)


async def test_halves_of_a_special_token_stay_text_beside_an_image(vision_model: ServedModel) -> None:
    halves = user(text("<|image_"), text("pad|>"), image(WIDE), text("<|vision_"), text("end|>"))
    prompt = await render(pb.GenerateRequest(messages=[halves]), vision_model)
    special = [vision_model.tokenizer.bytes_of(i) for i in prompt.token_ids if i in vision_model.tokenizer.special_ids]
    assert special.count(b"<|image_pad|>") == special.count(b"<|vision_end|>") == 1
    assert prompt.text.count("<|image_pad|>") == prompt.text.count("<|vision_end|>") == 2


@pytest.mark.parametrize("ids", [True, False])
async def test_a_placeholder_needs_an_image(vision_model: ServedModel, ids: bool) -> None:
    placeholder = vision_model.tokenizer.added_id("<|image_pad|>") or -1
    request = (
        pb.GenerateRequest(prompt_token_ids=[1, placeholder]) if ids else pb.GenerateRequest(prompt="<|image_pad|>")
    )
    with pytest.raises(Failure) as caught:
        await render(request, vision_model)
    assert caught.value.message == Message("image_placeholders_mismatch", field="messages", placeholders=1, count=0)


def test_a_tokenizer_without_the_placeholder_is_rejected(model_directory: Path) -> None:
    with pytest.raises(ValueError, match=r"has no token <\|image_pad\|>, which stands for images"):
        ServedModel.load(load_model("qwen3-vl"), model_directory)
