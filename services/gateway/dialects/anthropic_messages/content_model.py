"""The content blocks of Anthropic's requests."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from services.gateway.dialects.json_model import HIDDEN, RequestModel, doc

# fmt: off
FOREIGN_BLOCKS: Final = frozenset((
    "server_tool_use", "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result",
    "bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "tool_search_tool_result",
    "advisor_tool_result", "mcp_tool_use", "mcp_tool_result", "mcp_tool_listing", "container_upload", "compaction",
    "tool_addition", "tool_removal", "fallback", "tool_reference", "browser_state",
))
# fmt: on
"""Blocks about tools and features of Anthropic's own servers. They are left out of the prompt, and reported."""

CacheControl = Annotated[
    dict[str, Any] | None,
    doc(
        "Accepted: prompts are cached without it.",
        "پذیرفته می‌شود؛ پرامپت‌ها بدون آن هم کش می‌شوند.",
        example={"type": "ephemeral"},
    ),
]


class TextBlock(RequestModel, tag_field="type", tag="text"):
    """Text."""

    text: Annotated[str, doc("The text.", "متن.", example="این تصویر چیست؟")]
    cache_control: CacheControl = None


class PlainTextBlock(RequestModel):
    """Text, where no other kind of block may be."""

    # msgspec takes an object without its tag where it cannot be another.
    type: Annotated[Literal["text"], doc("Always `text`.", "همیشه `text`.", example="text")]
    text: Annotated[str, doc("The text.", "متن.", example="کوتاه پاسخ بده.")]
    cache_control: CacheControl = None


class Base64Source(RequestModel, tag_field="type", tag="base64"):
    """Data in base64."""

    data: Annotated[str, doc("The file in base64.", "فایل به base64.", example="R0lGODlhAQABAAAAACw=")]
    media_type: Annotated[
        str | None,
        doc(
            "The media type; that of an image is read from the image.",
            "نوع رسانه؛ نوع تصویر از خودش خوانده می‌شود.",
            example="image/gif",
        ),
    ] = None


class UrlSource(RequestModel, tag_field="type", tag="url"):
    """A file at a URL."""

    url: Annotated[
        str,
        doc(
            "An `https:` URL on a host that the operator allows.",
            "نشانی `https:` در میزبانی که مدیر سامانه اجازه داده باشد.",
            example="https://example.com/a.png",
            schema={"pattern": "^https:"},
        ),
    ]


class TextSource(RequestModel, tag_field="type", tag="text"):
    """A document as plain text."""

    data: Annotated[str, doc("The text.", "متن.", example="Tehran is the capital of Iran.")]
    media_type: Annotated[str | None, doc("Always `text/plain`.", "همیشه `text/plain`.", example="text/plain")] = None


class ImageBlock(RequestModel, tag_field="type", tag="image"):
    """An image."""

    source: Annotated[Base64Source | UrlSource, doc("The image.", "تصویر.")]
    cache_control: CacheControl = None


class ContentSource(RequestModel, tag_field="type", tag="content"):
    """A document as content blocks."""

    content: Annotated[str | list[TextBlock | ImageBlock], doc("Text, or blocks.", "متن یا بخش‌ها.", example="متن سند")]


class DocumentBlock(RequestModel, tag_field="type", tag="document"):
    """A document. Text becomes part of the prompt; PDF is not supported."""

    source: Annotated[TextSource | ContentSource, doc("The document.", "سند.")]
    title: Annotated[str | None, doc("Its title.", "عنوان.", example="ایران")] = None
    context: Annotated[str | None, doc("What it is about.", "دربارهٔ چیست.", example="دانشنامه")] = None
    cache_control: CacheControl = None


class SearchResultBlock(RequestModel, tag_field="type", tag="search_result"):
    """A search result, which becomes text of the prompt."""

    content: Annotated[list[PlainTextBlock], doc("The text.", "متن.")]
    source: Annotated[str, doc("Where it is from.", "منبع.", example="https://example.com")]
    title: Annotated[str, doc("Its title.", "عنوان.", example="Tehran")]
    cache_control: CacheControl = None


class ThinkingBlock(RequestModel, tag_field="type", tag="thinking"):
    """Earlier thinking of the model. Without a valid signature for this tenant and model, it is left out."""

    thinking: Annotated[str, doc("The thinking.", "فکر.", example="The user greets me.")]
    signature: Annotated[
        str | None, doc("The signature that came with it.", "امضایی که با آن آمد.", example="vt3.0a1b")
    ] = None
    cache_control: Annotated[Any, HIDDEN] = None


class RedactedThinkingBlock(RequestModel, tag_field="type", tag="redacted_thinking"):
    """Hidden thinking of another service, which is left out."""

    data: Annotated[Any, HIDDEN] = None


class ToolUseBlock(RequestModel, tag_field="type", tag="tool_use"):
    """A tool call of the model."""

    id: Annotated[str, doc("The id of the call.", "شناسهٔ فراخوانی.", example="toolu_1")]
    name: Annotated[str, doc("The tool's name.", "نام ابزار.", example="get_weather")]
    input: Annotated[dict[str, Any], doc("The input.", "ورودی.", example={"city": "Tehran"})]
    cache_control: CacheControl = None
    caller: Annotated[Any, HIDDEN] = None


class ToolResultBlock(RequestModel, tag_field="type", tag="tool_result"):
    """The result of a tool call."""

    tool_use_id: Annotated[str, doc("The id of the call.", "شناسهٔ فراخوانی.", example="toolu_1")]
    content: Annotated[
        str | list[TextBlock | ImageBlock | DocumentBlock | SearchResultBlock] | None,
        doc("Text, or blocks.", "متن یا بخش‌ها.", example="12 °C"),
    ] = None
    is_error: Annotated[bool | None, doc("Whether the tool failed.", "آیا اجرای ابزار شکست خورد.", example=False)] = (
        None
    )
    cache_control: CacheControl = None


Block = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
)


def _of_author(role: str, *further: str) -> dict[str, Any]:
    """Return a schema of the messages of an author, which may have the blocks `further` beside those of everyone."""
    kinds = ["text", "image", "document", "search_result", "redacted_thinking", *further]
    content = {"items": {"properties": {"type": {"enum": kinds}}}}
    return {"properties": {"role": {"const": role}, "content": content}}


class MessageParam(RequestModel):
    """One message of a conversation."""

    conditions: ClassVar = (
        {
            "anyOf": [
                _of_author("user", "tool_result"),
                _of_author("assistant", "tool_use", "thinking"),
                _of_author("system"),
            ]
        },
    )

    role: Annotated[
        Literal["user", "assistant", "system"],
        doc(
            "The author. A last message of the assistant is continued.",
            "نویسنده. اگر آخرین پیام از دستیار باشد، ادامه داده می‌شود.",
            example="user",
        ),
    ]
    content: Annotated[
        str
        | list[
            TextBlock
            | ImageBlock
            | DocumentBlock
            | SearchResultBlock
            | ThinkingBlock
            | RedactedThinkingBlock
            | ToolUseBlock
            | ToolResultBlock
        ],
        doc("Text, or blocks.", "متن یا بخش‌ها.", example="سلام"),
    ]
