"""Conversations as the chat templates of local models take them.

A template is part of a model: Jinja text that turns messages into the model's prompt, rendered by the model's
tokenizer. https://huggingface.co/docs/transformers/chat_templating
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from jinja2 import TemplateError

from orchestrator.errors import ConfigError, ModelUnavailable
from orchestrator.models.chat_format import chat_tools
from orchestrator.models.model import ChatMessage, ChatToolCall, ToolSchema

_TOOLS = re.compile(r"\btools\b")
_TOOLS_TOLD = """You can call these tools:
{tools}
To call one, write one JSON object in exactly this form, then wait for its result:
{{"name": "the tool's name", "arguments": {{"argument": "value"}}}}"""
_INVISIBLE = "\u200b"  # zero width space


class ChatTemplate:
    """The chat template of a model.

    A template that takes tools is given them, and the calls and results in the conversation, as they are. For one that
    does not, tools are described in the system prompt, calls are text of the assistant's, results are the user's.
    Messages of one role that follow each other become one, since many templates want the roles to alternate.

    Texts of the conversation cannot forge the template's own marks: a special token in them (``<|im_end|>``) is broken
    by an invisible space. They may come from a tool or a web page, and tools from a server.

    Args:
        model_id: for errors.
        renderer: the model's tokenizer, or the processor of a model that sees.
        settings: further arguments of ``apply_chat_template``.
        sees: pictures may be in the conversation.

    Raises:
        ConfigError: the model has no template.
    """

    def __init__(self, model_id: str, renderer: Any, settings: Mapping[str, Any] | None, *, sees: bool = False) -> None:
        self._model_id = model_id
        self._renderer = renderer
        self._settings = dict(settings or {})
        self._sees = sees
        self._takes_tools = bool(_TOOLS.search(self._text()))
        self._special = _special_tokens(getattr(renderer, "tokenizer", renderer))

    def prompt(self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema], **form: Any) -> Any:
        """The prompt for the reply to ``messages``. ``form`` goes to ``apply_chat_template``.

        Raises:
            ConfigError: there are pictures, and the model does not see.
            ModelUnavailable: the template refuses the conversation.
        """
        if not self._takes_tools:
            messages, tools = _with_tools_told(_without_tool_roles(messages), tools), ()
        told = _merged(messages)
        try:
            return self._rendered(told, tools, form)
        except TemplateError as error:
            refused = error
        try:  # some templates know no system role (Gemma's)
            return self._rendered(_merged(_without_system(told)), tools, form)
        except TemplateError:
            text = f"model {self._model_id}: its chat template refuses the conversation: {refused}"
            raise ModelUnavailable(text) from None

    def _rendered(self, messages: Sequence[ChatMessage], tools: Sequence[ToolSchema], form: Mapping[str, Any]) -> Any:
        return self._renderer.apply_chat_template(
            self._messages(messages),
            tools=self._harmless(chat_tools(tools)) or None,
            **{"add_generation_prompt": True, "tokenize": True, **form, **self._settings},
        )

    def _messages(self, messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
        names = {call.id: call.name for message in messages for call in message.tool_calls}
        return [self._message(message, names) for message in messages]

    def _message(self, message: ChatMessage, names: Mapping[str, str]) -> dict[str, Any]:
        made: dict[str, Any] = {"role": message.role, "content": self._content(message)}
        if message.tool_calls:
            made["tool_calls"] = [self._harmless(_call(call)) for call in message.tool_calls]
        if message.tool_call_id is not None:
            made["tool_call_id"] = message.tool_call_id
            made["name"] = names.get(message.tool_call_id, "")
        return made

    def _content(self, message: ChatMessage) -> str | list[dict[str, Any]]:
        text = self._harmless(message.content)
        if not self._sees:
            if message.images:
                raise ConfigError(f"model {self._model_id} takes no images")
            return str(text)
        pictures = [{"type": "image", "image": image.to_pil()} for image in message.images]
        return [{"type": "text", "text": text}, *pictures]

    def _harmless(self, value: Any) -> Any:
        """``value`` without special tokens in any of its texts."""
        match value:
            case str() if self._special:
                return self._special.sub(lambda token: token[0][0] + _INVISIBLE + token[0][1:], value)
            case dict():
                return {self._harmless(key): self._harmless(part) for key, part in value.items()}
            case list():
                return [self._harmless(part) for part in value]
            case _:
                return value

    def _text(self) -> str:
        owners = (self._renderer, getattr(self._renderer, "tokenizer", None))
        templates = (self._settings.get("chat_template"), *(getattr(owner, "chat_template", None) for owner in owners))
        template = next(filter(None, templates), None)
        if template is None:
            hint = "give one of a chat model, or apply_chat_template_kwargs={'chat_template': …}"
            raise ConfigError(f"model {self._model_id} has no chat template; {hint}")
        return "\n".join(template.values()) if isinstance(template, dict) else str(template)


def _special_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    texts = chain(getattr(tokenizer, "all_special_tokens", ()), (token.content for token in added if token.special))
    # Some tokenizers use an ordinary character as padding; that is no mark of a template.
    marks = sorted({text for text in texts if len(text) > 2 and not text.isalnum()}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, marks))) if marks else None


def _call(call: ChatToolCall) -> dict[str, Any]:
    # Unlike in OpenAI's form, templates get the arguments parsed: they write them in their own way.
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _without_tool_roles(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    return [_spoken(message) for message in messages]


def _spoken(message: ChatMessage) -> ChatMessage:
    if message.role == "tool":
        return ChatMessage("user", f"Observation:\n{message.content}", message.images)
    calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    if not calls:
        return message
    text = "\n".join((message.content, *(json.dumps(call, ensure_ascii=False) for call in calls))).strip()
    return ChatMessage(message.role, text, message.images)


def _with_tools_told(messages: Sequence[ChatMessage], tools: Sequence[ToolSchema]) -> list[ChatMessage]:
    if not tools:
        return list(messages)
    told = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in chat_tools(tools))
    prompt = ChatMessage("system", _TOOLS_TOLD.format(tools=told))
    place = 1 if messages and messages[0].role == "system" else 0
    return [*messages[:place], prompt, *messages[place:]]


def _merged(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    made: list[ChatMessage] = []
    for message in messages:
        last = made[-1] if made else None
        if last and last.role == message.role != "tool" and not last.tool_calls:
            content = f"{last.content}\n\n{message.content}" if last.content else message.content
            made[-1] = replace(message, content=content, images=(*last.images, *message.images))
        else:
            made.append(message)
    return made


def _without_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    return [replace(message, role="user") if message.role == "system" else message for message in messages]
