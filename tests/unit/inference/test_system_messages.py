"""System messages behind the first message: at their place where a template allows it, else in the system prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.chat_template import ChatTemplate
from services.inference.model.served_model import ServedModel
from services.inference.request.prompt import render
from tests.support.chat_templates import MINIMAX_M2, QWEN2_5

STRICT = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('no') }}{% endif %}"
ALTERNATING = STRICT + "[{{ m.role }}:{{ m.content }}]{% endfor %}"


def template(directory: Path, source: str) -> ChatTemplate:
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": source}))
    return ChatTemplate(directory)


def conversation(*roles: pb.Role.ValueType) -> pb.GenerateRequest:
    request = pb.GenerateRequest(model="m")
    for number, role in enumerate(roles):
        request.messages.add(role=role, content=[pb.ContentPart(text=f"t{number}")])
    return request


@pytest.mark.parametrize(("source", "keeps"), [(QWEN2_5, True), (MINIMAX_M2, False), (ALTERNATING, False)])
def test_a_template_shows_whether_it_takes_later_system_messages(tmp_path: Path, source: str, keeps: bool) -> None:
    assert template(tmp_path, source).keeps_later_system_messages is keeps


async def test_a_later_system_message_stays_at_its_place(model: ServedModel) -> None:
    text = (await render(conversation(pb.ROLE_SYSTEM, pb.ROLE_USER, pb.ROLE_SYSTEM), model)).text
    assert text.index("t0") < text.index("t1") < text.index("t2")
    assert text.count("<|im_start|>system") == 2


@pytest.mark.parametrize("first", [pb.ROLE_SYSTEM, pb.ROLE_USER])
async def test_later_system_messages_join_the_system_prompt_of_a_template_that_forbids_them(
    model: ServedModel, tmp_path: Path, first: pb.Role.ValueType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "template", template(tmp_path, ALTERNATING))
    request = conversation(first, pb.ROLE_USER, pb.ROLE_SYSTEM, pb.ROLE_ASSISTANT, pb.ROLE_SYSTEM)
    text = (await render(request, model)).text
    head = "t0\n\nt2\n\nt4][user:t1]" if first == pb.ROLE_SYSTEM else "t2\n\nt4][user:t0][user:t1]"
    assert text == f"[system:{head}[assistant:t3]"
