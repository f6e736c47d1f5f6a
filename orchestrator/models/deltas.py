"""The pieces of a streamed reply, joined again, and a reply taken to pieces. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from orchestrator.errors import ModelReplyInvalid
from orchestrator.models.chat_format import arguments_text
from orchestrator.models.model import ModelDelta, ModelReply, TokenUsage, ToolCallDelta
from orchestrator.models.tool_calls import MAX_TOOL_CALLS, Malformed, SentCall, checked_name, tool_calls

MAX_REPLY = 32 << 20  # characters of a joined reply; beyond any model's longest, and bearable in memory

_WORD = re.compile(r"\s*\S+|\s+$")


def joined(deltas: Iterable[ModelDelta]) -> ModelReply:
    """The reply that ``deltas`` are the pieces of.

    Raises:
        ModelReplyInvalid: see ``Joined``.
    """
    whole = Joined()
    for delta in deltas:
        whole.add(delta)
    return whole.reply()


class Joined:
    """Collects the pieces of one reply.

    Pieces of a call's arguments are appended; its name and id are the first that come, the usage is the last.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._usage: TokenUsage | None = None
        self._size = 0

    def add(self, delta: ModelDelta) -> None:
        """The next piece.

        Raises:
            ModelReplyInvalid: the reply is longer than ``MAX_REPLY``, or has more than ``MAX_TOOL_CALLS`` calls.
        """
        self._size += len(delta.text) + sum(len(piece.arguments) for piece in delta.tool_calls)
        if self._size > MAX_REPLY:
            raise ModelReplyInvalid(f"a streamed reply is longer than {MAX_REPLY:,} characters")
        if delta.text:
            self._texts.append(delta.text)
        for piece in delta.tool_calls:
            self._call(piece.index).add(piece)
        self._usage = delta.token_usage or self._usage

    def reply(self) -> ModelReply:
        """All pieces so far as one reply; calls in the order of their indexes.

        Raises:
            ModelReplyInvalid: a call has no name, or one that is too long.
        """
        try:
            calls = tool_calls([call.sent() for _, call in sorted(self._calls.items())])
        except Malformed as error:
            raise ModelReplyInvalid(f"a streamed reply {error}") from None
        return ModelReply("".join(self._texts), self._usage, calls)

    def _call(self, index: int) -> _Call:
        if index not in self._calls and len(self._calls) >= MAX_TOOL_CALLS:
            raise ModelReplyInvalid(f"a streamed reply has more than {MAX_TOOL_CALLS} tool calls")
        return self._calls.setdefault(index, _Call())


class _Call:
    def __init__(self) -> None:
        self._name = ""
        self._id = ""
        self._arguments: list[str] = []

    def add(self, piece: ToolCallDelta) -> None:
        self._name = self._name or piece.name
        self._id = self._id or piece.id
        if piece.arguments:
            self._arguments.append(piece.arguments)

    def sent(self) -> SentCall:
        if not self._name:
            raise Malformed("has a tool call without a name")
        return SentCall(checked_name(self._name), "".join(self._arguments), self._id)


def pieces_of(reply: ModelReply) -> Iterator[ModelDelta]:
    """``reply`` as a stream would give it: word by word, each call's name before its arguments, the usage last."""
    for word in _WORD.findall(reply.text):
        yield ModelDelta(word)
    for index, call in enumerate(reply.tool_calls):
        yield ModelDelta(tool_calls=(ToolCallDelta(index, "", call.name, call.id),))
        yield ModelDelta(tool_calls=(ToolCallDelta(index, arguments_text(call)),))
    yield ModelDelta(token_usage=reply.token_usage)
