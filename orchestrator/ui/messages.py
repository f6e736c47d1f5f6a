"""The messages of a chat window, bounded. Their contents are Markdown that markup.py has made inert. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

MAX_MESSAGES = 400  # of one run; a page with many more is slow to draw, and a run can make tool calls without end
MAX_WORK = 4_000_000  # characters of all that a run shows on its way to the answer, pictures of the steps among them
MAX_RUNS_MESSAGES = 1_000  # of a conversation: the oldest runs are let go
MAX_RUNS_SIZE = 24_000_000  # characters of it
_FULL = "*Not shown: this run shows too much already.*"

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message, or one part of a run that can be folded away.

    Attributes:
        key: its number in the conversation.
        role: who says it.
        content: inert Markdown.
        title: inert Markdown; with a title it can be folded.
        parent: the part that it belongs to.
        is_pending: it still goes on.
        folds: it is folded away when it does not go on any more.
        seconds: how long it took.
        note: a few words beside the title.
    """

    key: int
    role: Role
    content: str = ""
    title: str = ""
    parent: int | None = None
    is_pending: bool = False
    folds: bool = False
    seconds: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As gradio's ``Chatbot`` takes it."""
        return {"role": self.role, "content": {"type": "text", "text": self.content}, "metadata": self._metadata()}

    def _metadata(self) -> Mapping[str, Any] | None:
        if not self.title:
            return None
        more: dict[str, Any] = {"title": self.title, "id": self.key}
        more |= {} if self.parent is None else {"parent_id": self.parent}
        more |= {} if self.seconds is None else {"duration": round(self.seconds, 2)}
        more |= {"log": self.note} if self.note else {}
        more |= {"status": "done"} if self.folds else {}
        return more | ({"status": "pending"} if self.is_pending else {})


class RunMessages:
    """Those of one run, by key, in their order.

    Beyond the bounds nothing more is added, and ``None`` stands for the key of what is not there.
    """

    def __init__(self, first_key: int) -> None:
        self._first_key = first_key
        self._messages: list[Message] = []
        self._drafts: dict[int, Callable[[], str]] = {}
        self.left_out = 0
        self.size = 0

    @property
    def next_key(self) -> int:
        """The key of the next message."""
        return self._first_key + len(self._messages)

    def add(self, role: Role, content: str = "", *, always: bool = False, **more: Any) -> int | None:
        """A new message; its key. ``always``: what a visitor must be told, whatever the bounds."""
        if len(self._messages) >= MAX_MESSAGES and not always:
            self.left_out += 1
            return None
        key = self.next_key
        self._messages.append(Message(key, role, **more))
        self.put(key, content, always=always)
        return key

    def put(self, key: int | None, content: str, *, always: bool = False) -> None:
        """Gives a message another content."""
        if key is None:
            return
        self._drafts.pop(key, None)
        size = self.size - len(self._get(key).content)
        fits = always or size + len(content) <= MAX_WORK
        self._set(key, content=content if fits else _FULL)

    def draft(self, key: int | None, content: Callable[[], str]) -> None:
        """Content that grows: it is made when somebody looks, not with every piece that comes."""
        if key is not None:
            self._drafts[key] = content

    def more(self, key: int | None, content: str) -> None:
        """Adds to a message's content."""
        if key is not None:
            self._settle(key)
            self.put(key, f"{self._get(key).content}\n\n{content}".strip())

    def set(self, key: int | None, **changes: Any) -> None:
        """Changes anything of a message but its content."""
        if key is not None:
            self._set(key, **changes)

    def end(self) -> None:
        """Nothing goes on any more."""
        for message in self._messages:
            self._settle(message.key)
            self._set(message.key, is_pending=False)

    def all(self) -> Sequence[Message]:
        """The messages as they are now."""
        for key in list(self._drafts):
            self._settle(key)
        return tuple(self._messages)

    def _settle(self, key: int) -> None:
        if key in self._drafts:
            self.put(key, self._drafts[key]())

    def _get(self, key: int) -> Message:
        return self._messages[key - self._first_key]

    def _set(self, key: int, **changes: Any) -> None:
        before = self._get(key)
        after = replace(before, **changes)
        self.size += len(after.content) - len(before.content)
        self._messages[key - self._first_key] = after


class Conversation:
    """The runs of one visitor, oldest first."""

    def __init__(self) -> None:
        self._runs: list[RunMessages] = []
        self._is_cut = False

    def new_run(self) -> RunMessages:
        """The messages of the next run; the oldest runs make room for it."""
        run = RunMessages(self._runs[-1].next_key if self._runs else 1)
        self._runs.append(run)
        self._make_room()
        return run

    def as_dicts(self) -> list[dict[str, Any]]:
        """As gradio's ``Chatbot`` takes them."""
        self._make_room()
        cut = [Message(0, "assistant", "*Earlier messages are not shown any more.*").as_dict()] if self._is_cut else []
        return cut + [message.as_dict() for run in self._runs for message in run.all()]

    def _make_room(self) -> None:
        while len(self._runs) > 1 and self._is_full():
            self._runs.pop(0)
            self._is_cut = True

    def _is_full(self) -> bool:
        messages = sum(len(run.all()) for run in self._runs)
        return messages > MAX_RUNS_MESSAGES or sum(run.size for run in self._runs) > MAX_RUNS_SIZE
