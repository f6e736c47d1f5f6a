"""Messages and tools in the form of OpenAI's chat completions, which most providers take. No I/O.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.models.model import ChatMessage, ChatToolCall, ToolSchema

Roles = Mapping[str, str]


def chat_messages(messages: Sequence[ChatMessage], roles: Roles | None = None) -> list[dict[str, Any]]:
    """``messages`` as the API takes them. ``roles`` renames roles for servers that do not know all of them.

    Where ``tool`` is renamed, answers of tools are plain messages and calls are part of the text.
    """
    return [_message(message, roles or {}) for message in messages]


def chat_tools(tools: Sequence[ToolSchema]) -> list[dict[str, Any]]:
    """``tools`` as the API takes them."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
        }
        for tool in tools
    ]


def arguments_text(call: ChatToolCall) -> str:
    """The arguments of a call as JSON text."""
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)


def parsed_arguments(text: Any) -> Any:
    """The parsed JSON of a call's arguments, ``{}`` for none; what is no JSON stays as it is."""
    if not isinstance(text, str):
        return {} if text is None else text
    try:
        return json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return text


def _message(message: ChatMessage, roles: Roles) -> dict[str, Any]:
    made: dict[str, Any] = {"role": roles.get(message.role, message.role), "content": _content(message)}
    if "tool" in roles:  # a server that knows no answers of tools knows no calls either
        return made | {"content": _content(_with_calls_as_text(message))}
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments_text(call)}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    return made


def _with_calls_as_text(message: ChatMessage) -> ChatMessage:
    if not message.tool_calls:
        return message
    calls = "\n".join(f"{call.name}({arguments_text(call)})" for call in message.tool_calls)
    return replace(message, content=f"{message.content}\nCalling tools:\n{calls}".lstrip("\n"))


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.content
    pictures = [{"type": "image_url", "image_url": {"url": image.to_data_url()}} for image in message.images]
    return [{"type": "text", "text": message.content}, *pictures]
