"""The request of a chat completion, as most providers take it. No I/O.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, get_args

from orchestrator.errors import ConfigError
from orchestrator.models.asked import Asked
from orchestrator.models.chat_format import chat_messages, chat_tools
from orchestrator.models.model import ChatMessage, Role


class _Sentinel(Enum):
    """An enum member stays itself when it is copied or pickled."""

    REMOVE_PARAMETER = "REMOVE_PARAMETER"

    def __repr__(self) -> str:
        return self.value


REMOVE_PARAMETER: Final = _Sentinel.REMOVE_PARAMETER
"""As the value of a model's parameter: it is left out of the request, as in ``stop=REMOVE_PARAMETER``."""

# Reasoning models that answer `stop` with an error: https://platform.openai.com/docs/api-reference/chat/create#stop
# ("not supported with latest reasoning models o3 and o4-mini"); o3-mini takes it. With or without a provider's prefix.
_REFUSES_STOP = re.compile(r"(?:^|/)(?:o3(?!-mini)|o4|gpt-5|grok-)")
_NEEDS: Mapping[str, str] = {"tool_choice": "tools", "parallel_tool_calls": "tools", "stream_options": "stream"}
_REMOVABLE = ("stop", "stream_options", "tool_choice")  # a reply without them is still one: stops are enforced here
_NO_PARAMETERS = frozenset({"messages", "tools", "stream"})
_OTHER_NAMES: Mapping[str, str] = {"tool-response": "tool"}  # roles as smolagents calls them
_NO_ROLES = frozenset({"tool-call"})  # and one that is none here: calls are part of assistant messages


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What is the same in every request of a model.

    Attributes:
        model_id: the model's name on its server.
        parameters: sent along with every request, over what would be sent otherwise; see ``REMOVE_PARAMETER``.
        custom_role_conversions: roles that the server does not know -> those to send in their place. Messages of the
            same role that follow each other are then sent as one; with ``tool`` among them, calls are sent as text.
        flatten_messages_as_text: for servers that take text only: a picture is an error before anything is sent.

    Raises:
        ConfigError: a role is unknown, or a parameter is none.
    """

    model_id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    custom_role_conversions: Mapping[str, str] | None = None
    flatten_messages_as_text: bool = False

    def __post_init__(self) -> None:
        if wrong := _NO_PARAMETERS & self.parameters.keys():
            raise ConfigError(
                f"model {self.model_id}: {', '.join(sorted(wrong))}: arguments of generate, no parameters"
            )
        if unknown := self._roles().keys() - get_args(Role):
            raise ConfigError(
                f"custom_role_conversions: no such role: {', '.join(sorted(unknown))}; "
                f"there are {', '.join(get_args(Role))}"
            )

    def request(self, asked: Asked, without: Collection[str] = ()) -> dict[str, Any]:
        """One request. ``without``: parameters that the server is known to refuse.

        Raises:
            ConfigError: there is a picture, and ``flatten_messages_as_text``.
        """
        usual: dict[str, Any] = {"model": self.model_id, "messages": self._messages(asked.messages)}
        if asked.stop_sequences and not _REFUSES_STOP.search(self.model_id.lower()):
            usual["stop"] = list(asked.stop_sequences)
        if asked.tools:
            usual |= {"tools": chat_tools(asked.tools), "tool_choice": "required"}
        if asked.response_format is not None:
            usual["response_format"] = dict(asked.response_format)
        if asked.stream:
            usual |= {"stream": True, "stream_options": {"include_usage": True}}
        made = {name: value for name, value in usual.items() if name not in without} | dict(self.parameters)
        return {name: value for name, value in made.items() if _belongs(name, value, made)}

    def removable(self, request: Mapping[str, Any]) -> tuple[str, ...]:
        """What a server may refuse of ``request`` without harm, because nobody but this module asked for it."""
        return tuple(name for name in _REMOVABLE if name in request and name not in self.parameters)

    def _messages(self, messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
        if self.flatten_messages_as_text and any(message.images for message in messages):
            raise ConfigError(
                f"model {self.model_id} takes text only (flatten_messages_as_text), and there are pictures"
            )
        roles = self._roles()
        made = chat_messages(messages, roles)
        return _merged(made) if roles else made

    def _roles(self) -> dict[str, str]:
        given = {str(getattr(role, "value", role)): to for role, to in (self.custom_role_conversions or {}).items()}
        return {_OTHER_NAMES.get(role, role): to for role, to in given.items() if role not in _NO_ROLES}


def _belongs(name: str, value: Any, request: Mapping[str, Any]) -> bool:
    return value is not REMOVE_PARAMETER and (name not in _NEEDS or _NEEDS[name] in request)


def _merged(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """``messages`` with neighbours of the same role in one: such servers want the roles to alternate."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        if merged and _only_content(merged[-1], message) and merged[-1]["role"] == message["role"]:
            merged[-1] = {"role": message["role"], "content": _both(merged[-1]["content"], message["content"])}
        else:
            merged.append(message)
    return merged


def _only_content(*messages: Mapping[str, Any]) -> bool:
    return all(message.keys() == {"role", "content"} for message in messages)


def _both(first: Any, second: Any) -> Any:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
