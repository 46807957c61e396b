"""The recordings of the model `replay-thinking`: responses with reasoning and a tool call, in Qwen3's tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

MODEL: Final = "replay-thinking"
FIRST_TOKEN_MS: Final = 250
TOKEN_MS: Final = 15
END: Final = "<|im_end|>"
TOOL: Final = "get_weather"

_TOOL_RESULT: Final = "هوای تهران همین حالا صاف است و دما به **۲۴ درجه** می‌رسد؛ برای پیاده‌روی روز خوبی است. ☀️"
_TOOL_CALL: Final = (
    "<think>\nکاربر دربارهٔ هوا پرسیده است. خودم آن را نمی‌دانم، ولی ابزار `get_weather` هست؛ شهر: تهران.\n</think>\n\n"
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "تهران"}}\n</tool_call>'
)
_ANSWER: Final = """\
سلام! این پاسخ **ضبط‌شده** است و هر بار همین را می‌گوید؛ برای دیدن مسیر کامل یک پاسخ، از توکن تا صفحه.

برای معکوس کردن یک رشته در Python کافی است بنویسید:

```python
def reverse(text: str) -> str:
    return text[::-1]

print(reverse("سلام"))  # مالس
```

| روش | پیچیدگی | خوانایی |
|---|---|---|
| `text[::-1]` | O(n) | عالی |
| `"".join(reversed(text))` | O(n) | خوب |

۱. برش با گام منفی همه را از آخر می‌خواند.
۲. نویسه‌های ترکیبی مانند 👨‍👩‍👧‍👦 جدا می‌شوند؛ اگر مهم است، از کتابخانه‌ای برای grapheme کمک بگیرید."""
_REASONING: Final = """\
<think>
کاربر سلام کرده و احتمالاً می‌خواهد ببیند فکر کردن چگونه نشان داده می‌شود.

First, what would be useful? A short greeting, a piece of code, and a table, so that every kind of text can be seen.
راه ساده برای معکوس کردن رشته برش `[::-1]` است؛ حواسم باشد که دربارهٔ ایموجی‌های ترکیبی هم هشدار بدهم.
</think>

"""


def write_recordings(model_directory: Path, path: Path) -> None:
    """Write the recordings of the engine replay to `path`, in the tokens of the tokenizer in `model_directory`."""
    tokenizer = Tokenizer.from_file(str(model_directory / "tokenizer.json"))

    def ids(text: str) -> list[int]:
        return [int(token_id) for token_id in tokenizer.encode(text, add_special_tokens=False).ids]

    def recording(name: str, text: str, *, prompt_contains: str = "") -> dict[str, object]:
        return {
            "name": name,
            "prompt_contains": ids(prompt_contains),
            "token_ids": ids(text + END),
            "start_ms": FIRST_TOKEN_MS,
            "interval_ms": TOKEN_MS,
        }

    # The engine plays the first recording that matches.
    recordings = [
        recording("tool result", _TOOL_RESULT, prompt_contains="<tool_response>"),
        recording("tool call", _TOOL_CALL, prompt_contains=TOOL),
        # Reasoning is off, its budget is used up, or it has ended by itself.
        recording("no further reasoning", _ANSWER, prompt_contains="</think>\n\n"),
        recording("answer", "\n\n" + _ANSWER, prompt_contains="</think>"),
        recording("reasoning", _REASONING + _ANSWER),
    ]
    path.write_text(json.dumps(recordings))
