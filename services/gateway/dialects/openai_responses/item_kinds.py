"""The kinds of items, parts and tools that the Responses API distinguishes by their `type`."""

from __future__ import annotations

from typing import Final

TEXTS: Final = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
"""Parts of messages that are text."""
SYSTEM_TEXTS: Final = ("input_text", "text", "output_text")
"""Parts that system messages consist of."""
SKIPPED_ITEMS: Final = frozenset(
    {
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "compaction",
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "configuration_update",
        "context_compaction",
        "file_search_call",
        "image_generation_call",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)
"""Items of tools that OpenAI runs itself, and of compaction. They are left out, and reported."""
HOSTED_TOOLS: Final = frozenset(
    {
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "shell",
        "tool_search",
        "web_search",
        "web_search_preview",
    }
)
"""Tools that OpenAI runs itself."""
