"""A model's reply -> the tool calls that it wrote as text, for models that have no other way to call. No I/O.

What counts as a call:

- a JSON object with a name and arguments, or a list of such objects; alone, in a fence, in running text;
- the same after a marker of a chat template: ``<tool_call>``, ``[TOOL_CALLS]``, ``<|python_tag|>``. With a marker in
  the reply, what stands before it is no call;
- arguments after a name: ``<function=f>{…}``, ``[TOOL_CALLS]f[ARGS]{…}``, ``Action: f`` and ``Action Input: {…}``.

It is all or nothing: a call that cannot be read spoils the whole reply, because what a model meant with half of its
calls is unknown. What it writes after its calls as if it were their results is not read. A reasoning model's draft is
no part of the reply. Everything here is linear in the length of the reply, which may be hostile.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.agents.loose_json import NotJson, read_value
from orchestrator.agents.parsing import FormatError
from orchestrator.agents.thinking import past_thinking
from orchestrator.models.model import ChatToolCall

MAX_CHARS = 256_000  # a call is some lines; this much is a reply gone wrong, or an attack
MAX_CALLS = 64  # in one reply; more is a model that repeats itself
MAX_NAME = 256  # characters; endpoints allow 64
_SHOWN = 40  # characters of the reply to each side of what is wrong with it

_PLACES = re.compile(
    rf"""(?P<invented>^[ \t]*Observation:|<tool_response>|\[TOOL_RESULTS\])
    |(?P<named>(?:<function=|\[TOOL_CALLS\][ ]?|^[ \t]*Action:[ \t]*)
       (?P<name>[\w.:/-]{{1,{MAX_NAME}}})
       (?:>|\[ARGS\]|[ \t]*\r?\n[ \t]*Action[ _]Input:)\s*+(?=\{{))
    |(?P<marker>(?:<tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>)\s*+)
    |[\[{{]""",
    re.MULTILINE | re.VERBOSE,
)
_NAMES = ("name", "tool", "tool_name", "function", "action")
_ARGUMENTS = ("arguments", "parameters", "args", "tool_arguments", "tool_input", "action_input", "input")
_WRAPPERS = ("tool_calls", "tool_call", "function_call", "function", "action")
_BESIDE_A_NAME = frozenset({"id", "type"})  # an object with a name and more than these, but no arguments, is data


def written_calls(text: str) -> tuple[ChatToolCall, ...] | FormatError:
    """The calls in the reply ``text`` in its order, at least one; or what to tell the model when there is none."""
    try:
        if len(text) > MAX_CHARS:
            raise _Unusable(f"has {len(text)} characters; at most {MAX_CHARS} are read")
        calls = _Search(text).calls()
        if not calls:
            raise _Unusable("calls no tool")
        if len(calls) > MAX_CALLS:
            raise _Unusable(f"has {len(calls)} tool calls; at most {MAX_CALLS} are made at once")
    except _Unusable as wrong:
        return FormatError(_message(str(wrong), text))
    # Some templates want nine letters and digits (Mistral's); the number makes them unique, the rest in a conversation.
    return tuple(ChatToolCall(*call, id=f"{n:02x}{uuid.uuid4().hex[:7]}") for n, call in enumerate(calls))


_Call = tuple[str, Any]  # name and arguments


class _Unusable(Exception):
    """What is wrong with the reply, to be read after "Your reply"."""


class _Search:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = past_thinking(text)
        self._marker_end = -1  # JSON that begins here was meant as a call
        self._marked = False
        self._found: list[_Call] = []
        self._wrong: _Unusable | None = None

    def calls(self) -> list[_Call]:
        while place := _PLACES.search(self._text, self._position):
            self._position = place.end()
            match place.lastgroup:
                case "invented" if self._found:
                    break
                case "invented":
                    pass  # a model may also tell what it saw before
                case "marker":
                    self._mark()
                case "named":
                    self._mark()
                    self._take_arguments(place["name"])
                case _:
                    self._take_json(place.start())
        if self._wrong:
            raise self._wrong
        return self._found

    def _mark(self) -> None:
        if not self._marked:
            self._found, self._wrong = [], None
        self._marked = True
        self._marker_end = self._position

    def _take_arguments(self, name: str) -> None:
        arguments = self._read(self._position)
        if isinstance(arguments, dict):
            self._found.append((name, arguments))

    def _take_json(self, start: int) -> None:
        try:
            self._found.extend(self._calls_in(self._read(start)))
        except _Unusable as wrong:
            self._spoil(wrong)

    def _spoil(self, wrong: _Unusable) -> None:
        """A marker that comes later shows that it was none of the calls; after a marker it was."""
        if self._marked:
            raise wrong
        self._wrong = self._wrong or wrong

    def _read(self, start: int) -> Any:
        """The JSON at ``start``; None if it is none and was not meant as a call."""
        try:
            value, self._position = read_value(self._text, start)
        except NotJson as wrong:
            self._position = max(wrong.position, start + 1)
            if wrong.too_deep:
                raise _Unusable(self._described(wrong)) from None
            if start == self._marker_end or wrong.keys.intersection(_NAMES):
                self._spoil(_Unusable(self._described(wrong)))
            return None
        return value

    def _described(self, wrong: NotJson) -> str:
        before = self._text[max(0, wrong.position - _SHOWN) : wrong.position]
        if wrong.unfinished:
            return f"ends before its tool call does: {wrong.reason} after {before!r}"
        after = self._text[wrong.position : wrong.position + _SHOWN]
        return f"has a tool call that is no valid JSON: {wrong.reason} between {before!r} and {after!r}"

    def _calls_in(self, value: Any) -> list[_Call]:
        """The calls that ``value`` stands for: none if it is something else."""
        match value:
            case list():
                return self._calls_of(value)
            case dict():
                call = self._call(value)
                wrapped = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), list | dict)), None)
                return [call] if call else self._calls_in(wrapped)
            case _:
                return []

    def _calls_of(self, items: Sequence[Any]) -> list[_Call]:
        each = [self._calls_in(item) for item in items]
        if any(each) and not all(each):
            raise _Unusable("has a list with tool calls and something else in it")
        return [call for calls in each for call in calls]

    def _call(self, value: Mapping[str, Any]) -> _Call | None:
        name_key = next((key for key in _NAMES if _is_name(value.get(key))), None)
        if name_key is None:
            return None
        key = next((key for key in _ARGUMENTS if key in value and key != name_key), None)
        if key is None:
            return (value[name_key], {}) if value.keys() <= {name_key, *_BESIDE_A_NAME} else None
        if key == "parameters" and "description" in value:  # the tool's definition, repeated
            return None
        return value[name_key], _arguments(value[key])


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME


def _arguments(value: Any) -> Any:
    """Arguments are given as an object, as its JSON text (OpenAI's way), or not at all."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    if not isinstance(value, str):
        return value
    try:
        read, end = read_value(value)
    except NotJson:
        return value
    return read if isinstance(read, dict) and not value[end:].strip() else value


def _message(wrong: str, text: str) -> str:
    form = json.dumps({"name": "the tool's name", "arguments": {"argument": "value"}})
    hint = ""
    if "final" in text.lower() and "answer" in text.lower():
        answer = json.dumps({"name": "final_answer", "arguments": {"answer": "your answer"}})
        hint = f"\nTo give the final answer, call it as a tool:\n{answer}"
    asked = "No tool was called. Write each call as one JSON object in exactly this form:"
    return f"Your reply {wrong}. {asked}\n{form}{hint}"
