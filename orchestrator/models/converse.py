"""Messages, tools and replies in the form of Amazon Bedrock's Converse API. No I/O.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.errors import ModelReplyInvalid
from orchestrator.media import AgentImage
from orchestrator.models.chat_format import Roles, arguments_text
from orchestrator.models.completion import is_count
from orchestrator.models.model import (
    ChatMessage,
    ChatToolCall,
    ModelDelta,
    ModelReply,
    TokenUsage,
    ToolCallDelta,
    ToolSchema,
)
from orchestrator.models.tool_calls import Malformed, SentCall, checked_name, encodable, tool_calls

_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_.:-]")  # the API's pattern of a toolUseId; ids of other models may differ
_MAX_ID = 64
_EMPTY = "(empty)"  # the API refuses blank text


def converse_messages(
    messages: Sequence[ChatMessage], roles: Roles | None = None, *, with_tools: bool = False
) -> dict[str, Any]:
    """``messages`` as the API's ``messages`` and, if there is any, ``system``.

    The API knows two roles, which must alternate, so what one side says in a row becomes one message.

    Args:
        messages: the conversation.
        roles: renames roles; a model without system prompts needs ``{"system": "user"}``.
        with_tools: the request has tools. Without them the API refuses calls and their results, which then become text.
    """
    roles = roles or {}
    native = with_tools and roles.get("tool", "tool") == "tool"
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = roles.get(message.role, message.role)
        if role == "system":
            system += _text(message.content)
        else:
            _append(turns, "assistant" if role == "assistant" else "user", _blocks(message, native))
    return {"messages": turns, **({"system": system} if system else {})}


def converse_tools(tools: Sequence[ToolSchema]) -> dict[str, Any]:
    """``tools`` as the API's ``toolConfig``; the model must call at least one."""
    return {"toolConfig": {"tools": [_tool(tool) for tool in tools], "toolChoice": {"any": {}}}}


def converse_output(response_format: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's ``response_format`` as the API's ``outputConfig``; ``{}`` for one that names no schema."""
    match response_format:
        case {"type": "json_schema", "json_schema": {"schema": schema, **more}}:
            named = {key: more[key] for key in ("name", "description") if more.get(key)}
            structure = {"jsonSchema": {"schema": json.dumps(schema), **named}}
            return {"outputConfig": {"textFormat": {"type": "json_schema", "structure": structure}}}
        case _:
            return {}


def parse_converse(name: str, answer: Any) -> ModelReply:
    """The text, the calls and the usage of the API's answer. What the model thought is left out.

    Raises:
        ModelReplyInvalid: this is no such answer.
    """
    match answer:
        case {"output": {"message": {"content": list(blocks)}}}:
            text = "".join(text for block in blocks if isinstance(text := block.get("text"), str))
            try:
                calls = tool_calls([_call(block["toolUse"]) for block in blocks if "toolUse" in block])
            except Malformed as error:
                raise ModelReplyInvalid(f"model {name}: the endpoint's answer {error}") from None
            return ModelReply(encodable(text), _usage(answer.get("usage")), calls)
        case _:
            raise ModelReplyInvalid(f"model {name}: the endpoint's answer has no message")


class ConverseEvents:
    """The events of one streamed answer -> pieces of a reply.

    Attributes:
        complete: the answer came to its end.
    """

    def __init__(self) -> None:
        self.complete = False
        self._calls: dict[int, int] = {}  # a block's index among all blocks -> its call's among the calls

    def delta(self, event: Mapping[str, Any]) -> ModelDelta | None:
        """What ``event`` adds to the reply, if anything."""
        match event:
            case {"contentBlockDelta": {"delta": {"text": str(text)}}}:
                return ModelDelta(encodable(text))
            case {
                "contentBlockStart": {
                    "contentBlockIndex": int(at),
                    "start": {"toolUse": {"name": str(name), "toolUseId": str(call)}},
                }
            }:
                return ModelDelta(tool_calls=(ToolCallDelta(self._index(at), "", name, call),))
            case {"contentBlockDelta": {"contentBlockIndex": int(at), "delta": {"toolUse": {"input": str(piece)}}}}:
                return ModelDelta(tool_calls=(ToolCallDelta(self._index(at), piece),))
            case {"metadata": {"usage": usage}}:
                return ModelDelta(token_usage=_usage(usage))
            case {"messageStop": _}:
                self.complete = True
        return None

    def _index(self, at: int) -> int:
        return self._calls.setdefault(at, len(self._calls))


def _append(turns: list[dict[str, Any]], role: str, blocks: list[dict[str, Any]]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    elif blocks:
        turns.append({"role": role, "content": blocks})


def _blocks(message: ChatMessage, native: bool) -> list[dict[str, Any]]:
    said = [*_text(message.content), *map(_image, message.images)]
    if native and message.role == "tool" and message.tool_call_id is not None:
        result = {"toolUseId": _id(message.tool_call_id), "content": said or [{"text": _EMPTY}]}
        return [{"toolResult": result}]
    return said + [_use(call) if native else {"text": _call_text(call)} for call in message.tool_calls]


def _text(text: str) -> list[dict[str, Any]]:
    return [{"text": text}] if text.strip() else []


def _image(image: AgentImage) -> dict[str, Any]:
    return {"image": {"format": image.mime.removeprefix("image/"), "source": {"bytes": image.data}}}


def _use(call: ChatToolCall) -> dict[str, Any]:
    # The API takes only objects as input; what a model wrote instead of one was refused, and is kept as its argument.
    arguments = call.arguments if isinstance(call.arguments, dict) else {"arguments": call.arguments}
    return {"toolUse": {"toolUseId": _id(call.id), "name": call.name, "input": arguments}}


def _call_text(call: ChatToolCall) -> str:
    return f"Calling tool {call.name} with {arguments_text(call)}"


def _id(text: str) -> str:
    return _NOT_IN_IDS.sub("_", text)[-_MAX_ID:] or "_"


def _tool(tool: ToolSchema) -> dict[str, Any]:
    schema = {"json": dict(tool.parameters)}
    return {"toolSpec": {"name": tool.name, "description": tool.description or tool.name, "inputSchema": schema}}


def _call(use: Any) -> SentCall:
    match use:
        case {"name": str(name)}:
            return SentCall(checked_name(name), use.get("input"), use.get("toolUseId"))
        case _:
            raise Malformed("has a tool call without a name")


def _usage(usage: Any) -> TokenUsage | None:
    match usage:
        case {"inputTokens": read, "outputTokens": written} if is_count(read) and is_count(written):
            # Unlike OpenAI's, this count leaves out what was read from the prompt cache or written to it.
            cached = [usage.get("cacheReadInputTokens"), usage.get("cacheWriteInputTokens")]
            return TokenUsage(read + sum(filter(is_count, cached)), written)
        case _:
            return None
