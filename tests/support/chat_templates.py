"""Chat templates for tests, written by the descriptions of model families whose own files are in no small package.

`VILIX_TEST_TEMPLATES` is a directory with the real templates (MiniMax-M2.jinja, Qwen-Qwen2.5-7B-Instruct.jinja, as in
llama.cpp), which then replace these. The tests expect the output of the real templates.
"""

from __future__ import annotations

import os
from pathlib import Path

MINIMAX_M2 = """\
{%- set head, turns, last = 'You are a helpful assistant.', messages, namespace(user=-1) %}
{%- if messages[0].role == 'system' %}
{%- set head, turns = messages[0].content, messages[1:] %}
{%- endif %}
{%- for turn in turns %}
{%- if turn.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}
{%- endfor %}
{{- ']~!b[]~b]system\\n' ~ head }}
{%- if tools %}
{{- '\\n\\n# Tools\\nYou may call one or more tools to assist with the user query.\\n' }}
{{- 'Here are the tools available in JSONSchema format:\\n\\n<tools>\\n' }}
{%- for tool in tools %}
{{- '<tool>' ~ (tool.function | tojson) ~ '</tool>\\n' }}
{%- endfor %}
{{- '</tools>\\n\\nWhen making tool calls, use XML format to invoke tools and pass parameters:\\n\\n' }}
{{- '<minimax:tool_call>\\n<invoke name="tool-name-1">\\n<parameter name="param-key-1">param-value-1</parameter>\\n' }}
{{- '<parameter name="param-key-2">param-value-2</parameter>\\n...\\n</invoke>\\n</minimax:tool_call>' }}
{%- endif %}
{{- '[e~[\\n' }}
{%- for turn in turns %}
{%- if turn.role == 'user' %}
{{- ']~b]user\\n' ~ turn.content ~ '[e~[\\n' }}
{%- elif turn.role == 'assistant' %}
{{- ']~b]ai\\n' }}
{%- if turn.reasoning_content and loop.index0 > last.user %}
{{- '<think>\\n' ~ turn.reasoning_content ~ '\\n</think>\\n\\n' }}
{%- endif %}
{{- turn.content }}
{%- if turn.tool_calls %}
{{- '\\n<minimax:tool_call>\\n' }}
{%- for call in turn.tool_calls %}
{{- '<invoke name="' ~ call.function.name ~ '">\\n' }}
{%- for name, value in call.function.arguments.items() %}
{{- '<parameter name="' ~ name ~ '">' ~ (value if value is string else value | tojson) ~ '</parameter>\\n' }}
{%- endfor %}
{{- '</invoke>\\n' }}
{%- endfor %}
{{- '</minimax:tool_call>' }}
{%- endif %}
{{- '[e~[\\n' }}
{%- elif turn.role == 'tool' %}
{%- if turns[loop.index0 - 1].role != 'tool' %}{{- ']~b]tool' }}{% endif %}
{{- '\\n<response>' ~ turn.content ~ '</response>' }}
{%- if loop.last or turns[loop.index0 + 1].role != 'tool' %}{{- '[e~[\\n' }}{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- ']~b]ai\\n<think>\\n' }}{% endif %}"""

QWEN2_5 = """\
{%- set head, turns = 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.', messages %}
{%- if messages[0].role == 'system' %}
{%- set head, turns = messages[0].content, messages[1:] %}
{%- endif %}
{{- '<|im_start|>system\\n' ~ head }}
{%- if tools %}
{{- '\\n\\n# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n' }}
{{- 'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' ~ (tool | tojson) }}{% endfor %}
{{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within ' }}
{{- '<tool_call></tool_call> XML tags:\\n<tool_call>\\n' }}
{{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call>' }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for turn in turns %}
{%- if turn.role == 'tool' %}
{%- if turns[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{% endif %}
{{- '\\n<tool_response>\\n' ~ turn.content ~ '\\n</tool_response>' }}
{%- if loop.last or turns[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{% endif %}
{%- else %}
{{- '<|im_start|>' ~ turn.role }}
{%- if turn.content or not turn.tool_calls %}{{- '\\n' ~ turn.content }}{% endif %}
{%- for call in turn.tool_calls %}
{{- '\\n<tool_call>\\n{"name": "' ~ call.function.name ~ '", "arguments": ' }}
{{- (call.function.arguments | tojson) ~ '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

_REAL = {"minimax": "MiniMax-M2.jinja", "qwen2.5vl": "Qwen-Qwen2.5-7B-Instruct.jinja"}
_STAND_INS = {"minimax": MINIMAX_M2, "qwen2.5vl": QWEN2_5}


def template_of(model_id: str) -> str:
    """Return the template of a model of the catalog."""
    directory = os.environ.get("VILIX_TEST_TEMPLATES")
    return (Path(directory) / _REAL[model_id]).read_text() if directory else _STAND_INS[model_id]
