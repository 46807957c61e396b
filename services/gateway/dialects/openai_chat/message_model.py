"""The messages of OpenAI's chat completion request, and their parts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from services.gateway.dialects.json_model import HIDDEN, NULLABLE, RequestModel, doc
from services.gateway.dialects.openai_request import IMAGE_URL_PATTERN

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class ImageUrl(RequestModel):
    """An image."""

    url: Annotated[
        str,
        doc(
            "A `data:` URL in base64: PNG, JPEG, WebP or GIF. An `https:` URL only if the operator allows its host.",
            "نشانی `data:` با base64 از نوع PNG، JPEG، WebP یا GIF. نشانی `https:` تنها اگر مدیر سامانه میزبانش را "
            "اجازه داده باشد.",
            example="data:image/gif;base64,R0lGODlhAQABAAAAACw=",
            schema={"pattern": IMAGE_URL_PATTERN},
        ),
    ]
    detail: Annotated[
        Literal["auto", "low", "high"] | None,
        doc(
            "The resolution at which the model sees the image: up to 256, 2,048 (auto) or 8,192 tokens for one image.",
            "دقت دیدن تصویر: برای هر تصویر تا ۲۵۶، ۲۰۴۸ (auto) یا ۸۱۹۲ توکن.",
            example="auto",
        ),
    ] = None


class TextPart(RequestModel, tag_field="type", tag="text"):
    """Text within a message."""

    text: Annotated[str, doc("The text.", "متن.", example="این تصویر چیست؟")]


class ImagePart(RequestModel, tag_field="type", tag="image_url"):
    """An image within a message."""

    image_url: Annotated[ImageUrl, doc("The image.", "تصویر.")]


class CalledFunction(RequestModel):
    """The function of a tool call in the conversation so far."""

    name: Annotated[str, doc("The function's name.", "نام تابع.", example="get_weather")]
    arguments: Annotated[str | None, doc("JSON as text.", "متن JSON.", example='{"city":"Tehran"}')] = None


class ToolCall(RequestModel):
    """A tool call in the conversation so far."""

    function: Annotated[CalledFunction, doc("The function and its arguments.", "تابع و ورودی‌های آن.")]
    id: Annotated[
        str | None,
        doc(
            "The id of the call, to which the result refers.",
            "شناسهٔ فراخوانی که نتیجه به آن اشاره می‌کند.",
            example="call_1",
        ),
    ] = None
    type: Annotated[Literal["function"] | None, doc("Always `function`.", "همیشه `function`.", example="function")] = (
        None
    )
    # Clients that join the deltas of a stream keep the position in the list.
    index: Annotated[Any, HIDDEN] = None


class Message(RequestModel):
    """One message of a conversation."""

    # Every message but the assistant's needs content.
    conditions: ClassVar = (
        {
            "if": {"properties": {"role": {"const": "assistant"}}},
            "else": {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}},
        },
    )

    role: Annotated[Role, doc("The author of the message.", "نویسندهٔ پیام.", example="user")]
    content: Annotated[
        str | list[TextPart | ImagePart] | None,
        NULLABLE,
        doc("Text, or parts of text and images.", "متن، یا بخش‌هایی از متن و تصویر.", example="سلام"),
    ] = None
    name: Annotated[
        str | None,
        doc(
            "The author's name, if the model's template shows it; in a function's result, the function's name.",
            "نام گوینده، اگر قالب مدل آن را نشان دهد؛ در نتیجهٔ تابع، نام تابع.",
            example="sara",
        ),
    ] = None
    tool_calls: Annotated[
        list[ToolCall] | None,
        doc("In a message of the assistant: the calls that it made.", "در پیام مدل، فراخوانی‌هایی که انجام داده است."),
    ] = None
    tool_call_id: Annotated[
        str | None,
        doc(
            "In a message of a tool: the call of which it is the result.",
            "در پیام ابزار، فراخوانی‌ای که پاسخ آن است.",
            example="call_1",
        ),
    ] = None
    function_call: Annotated[
        CalledFunction | None,
        doc(
            "In a message of the assistant: a call in OpenAI's older notation, whose result has the role `function`.",
            "در پیام مدل، یک فراخوانی به شکل قدیمی OpenAI که نقش `function` پاسخ آن را می‌آورد.",
        ),
    ] = None
    reasoning_content: Annotated[
        str | None,
        doc("In a message of the assistant: its reasoning.", "در پیام مدل، فکر آن.", example="The user greets me."),
    ] = None
    reasoning: Annotated[
        str | None, doc("Another name of `reasoning_content`.", "نام دیگر `reasoning_content`.", example="")
    ] = None
    audio: Annotated[Any, HIDDEN] = None
