from __future__ import annotations

import base64
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.errors import ApiError
from services.gateway.images.limits import ImageLimits
from services.runtime.messages.message import Message
from tests.unit.gateway.chat_bodies import read_chat

PNG = b"\x89PNG\r\n\x1a\n and more"
IMAGES = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0 and more",
    "image/gif": b"GIF89a and more",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
}
URL = "messages[0].content[{}].image_url.url"


def data_url(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def part(url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def request(*messages: list[dict[str, Any]], limits: ImageLimits | None = None) -> pb.GenerateRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": content} for content in messages]}
    return read_chat(body, strict=True, limits=limits).generate


def rejection(*content: dict[str, Any], limits: ImageLimits | None = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        request(list(content), limits=limits)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(("media_type", "content"), IMAGES.items())
@pytest.mark.parametrize("declared", ["", "image/png", "image/jpeg", "text/html;charset=utf-8"])
def test_the_media_type_is_recognised_from_the_content(media_type: str, content: bytes, declared: str) -> None:
    generate = request([part(data_url(content, declared), detail="low")])
    expected = pb.Image(data=content, mime_type=media_type, detail=pb.IMAGE_DETAIL_LOW)
    assert generate.messages[0].content[0].image == expected


def test_images_and_texts_keep_their_order_over_several_messages() -> None:
    jpeg, gif = IMAGES["image/jpeg"], IMAGES["image/gif"]
    first = [part(data_url(PNG)), {"type": "text", "text": "a"}, part(data_url(jpeg))]
    generate = request(first, [{"type": "text", "text": "b"}, part(data_url(gif))])
    assert [[one.text or one.image.data for one in message.content] for message in generate.messages] == [
        [PNG, "a", jpeg],
        ["b", gif],
    ]


@pytest.mark.parametrize(
    ("url", "message_id"),
    [
        ("https://example.org/a.png", "images_not_fetched"),
        ("http://example.org/a.png", "image_not_data_url"),
        ("file:///etc/passwd", "image_not_data_url"),
        ("", "image_not_data_url"),
        ("data:image/png,abc", "image_not_base64"),
        ("data:image/png;base64,???", "base64_not_valid"),
        ("data:image/png;base64,", "image_format_unknown"),
        (data_url(b"<svg/>", "image/svg+xml"), "image_format_unknown"),
    ],
)
def test_a_url_without_a_valid_image_is_rejected(url: str, message_id: str) -> None:
    error = rejection({"type": "text", "text": "?"}, part(url))
    assert (error.field, error.message.id) == (URL.format(1), message_id)


def test_an_unknown_detail_is_rejected() -> None:
    error = rejection(part(data_url(PNG), detail="huge"))
    assert error.field == "messages[0].content[0].image_url.detail"
    assert (error.message.id, error.message.parameters["choices"]) == ("not_one_of", "auto, low, high")


@pytest.mark.parametrize("kind", ["input_audio", "file", "video_url"])
def test_other_content_parts_are_rejected_by_name(kind: str) -> None:
    error = rejection({"type": kind, kind: {}})
    assert error.field == "messages[0].content[0].type"
    assert (error.message.id, error.message.parameters["value"]) == ("not_one_of", f'"{kind}"')


def test_errors_about_limits_name_the_limit_and_the_value() -> None:
    image = part(data_url(PNG))
    size = len(PNG)
    exact = ImageLimits(most=2, max_bytes=size, max_total_bytes=2 * size)
    request([image, image], limits=exact)
    error = rejection(image, image, limits=ImageLimits(most=1))
    assert error.message == Message("too_many_images", field="messages[0].content[1].image_url", value=2, count=1)
    error = rejection(image, limits=ImageLimits(max_bytes=size - 1))
    assert error.message == Message("image_over_bytes", field=URL.format(0), value=size, limit=size - 1)
    error = rejection(image, image, limits=ImageLimits(max_total_bytes=2 * size - 1))
    assert error.message == Message("images_over_bytes", field=URL.format(1), value=2 * size, limit=2 * size - 1)
