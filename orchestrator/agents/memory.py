"""What an agent remembers, and the messages that its model is shown of it.

History is append-only, so each request begins with the very text of the one before it: providers
that cache prompts by their beginning can. Where the conversation becomes too long, another view of its beginning is
shown from then on (see compaction.py); the steps themselves stay.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.agents.steps import ActionStep, KeptStep, MemoryStep, SystemPromptStep, assigned
from orchestrator.models import ChatMessage


@dataclass(frozen=True, slots=True)
class _Written:
    """A step as it was when its messages were written."""

    step: MemoryStep
    messages: tuple[ChatMessage, ...]
    assigned: tuple[object, ...]

    def is_of(self, step: MemoryStep) -> bool:
        """Whether they are the messages of ``step`` still."""
        same = zip(self.assigned, assigned(step), strict=True) if self.step is step else None
        return same is not None and all(before is now for before, now in same)


class AgentMemory:
    """The system prompt and all steps since the last reset.

    Attributes:
        system_prompt: the first step; stays over resets.
        steps: the others, oldest first.
    """

    def __init__(self, system_prompt: str) -> None:
        self.system_prompt = SystemPromptStep(system_prompt)
        self.steps: list[KeptStep] = []
        self._view: tuple[tuple[KeptStep, ...], tuple[KeptStep, ...]] = ((), ())  # those steps are shown as these
        self._written: dict[int, _Written] = {}  # by the identity of the step

    def append(self, step: KeptStep) -> None:
        """Adds the newest step."""
        self.steps.append(step)

    def set_system_prompt(self, text: str) -> None:
        """A new system prompt; the same text again changes nothing."""
        if text != self.system_prompt.system_prompt:
            self.system_prompt = SystemPromptStep(text)

    def reset(self) -> None:
        """Forgets all steps."""
        self.steps = []
        self._view = ((), ())

    def take(self, other: AgentMemory) -> None:
        """The steps of ``other`` in the place of its own."""
        self.steps, self._view = other.steps, other._view

    def copy(self) -> AgentMemory:
        """Another memory with the same steps in a list of its own."""
        twin = copy.copy(self)
        twin.steps = list(self.steps)
        twin._written = dict(self._written)
        return twin

    def all_steps(self) -> tuple[MemoryStep, ...]:
        """The system prompt and every step."""
        return (self.system_prompt, *self.steps)

    def show(self, steps: Iterable[KeptStep], covered: int | None = None) -> None:
        """From now on ``steps`` are shown in the place of the first ``covered`` ones; default: of all there are now."""
        self._view = (tuple(self.steps[:covered]), tuple(steps))

    @property
    def view(self) -> tuple[tuple[KeptStep, ...], tuple[KeptStep, ...]]:
        """The first steps, and what is shown in their place; two empty tuples if all are shown as they are."""
        covered, shown = self._view
        if len(covered) > len(self.steps) or any(a is not b for a, b in zip(covered, self.steps, strict=False)):
            return (), ()  # somebody changed what it stands for
        return covered, shown

    def shown_steps(self) -> tuple[KeptStep, ...]:
        """The steps that the model is shown."""
        covered, shown = self.view
        return (*shown, *self.steps[len(covered) :])

    def to_messages(self) -> list[ChatMessage]:
        """The conversation so far. Neighbours of one role are one message: some templates want roles to alternate."""
        shown = (self.system_prompt, *self.shown_steps())
        messages = merged(message for step in shown for message in self.messages_of(step))
        self._written = {id(step): self._written[id(step)] for step in shown}  # what is no longer shown is let go
        return messages

    def messages_of(self, step: MemoryStep) -> tuple[ChatMessage, ...]:
        """Those of one step. They are made anew only when something was assigned to it: their text can be long."""
        written = self._written.get(id(step))
        if written is None or not written.is_of(step):
            written = self._written[id(step)] = _Written(step, tuple(step.to_messages()), assigned(step))
        return written.messages

    def save(self, path: str | Path) -> None:
        """Writes it to a JSON file, whole or not at all; the file is its owner's alone.

        Values of classes of your own are written as the text of their repr.

        Raises:
            AgentError: the file cannot be written.
        """
        from orchestrator.agents.memory_json import save  # which makes memories

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> AgentMemory:
        """The memory that ``save`` wrote: ``agent.memory = AgentMemory.load(path)``, then ``run(…, reset=False)``.

        It shows a model the very same messages. Variables in a sandbox are not part of it. Nothing in the file is
        evaluated; but what it says is what your model will be told, so load none that you do not trust for that.

        Raises:
            AgentError: the file cannot be read, is too large, or is no memory.
        """
        from orchestrator.agents.memory_json import load

        return load(path)

    def get_full_steps(self) -> list[Mapping[str, Any]]:
        """Every step but the system prompt as ``dict()`` gives it."""
        return [step.dict() for step in self.steps]

    def get_succinct_steps(self) -> list[Mapping[str, Any]]:
        """The same without the unshortened outcomes of executions."""
        return [{key: part for key, part in step.items() if key != "execution"} for step in self.get_full_steps()]

    def return_full_code(self) -> str:
        """All code that ran, in order."""
        return "\n\n".join(s.code_action for s in self.steps if isinstance(s, ActionStep) and s.code_action)


def merged(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """Neighbours of one role as one message, but for tool calls and their answers, which stand alone."""
    made: list[ChatMessage] = []
    for message in messages:
        if made and made[-1].role == message.role and message.role != "tool" and not message.tool_calls:
            before = made.pop()
            both = "\n\n".join(filter(None, (before.content, message.content)))
            message = replace(before, content=both, images=before.images + message.images)
        made.append(message)
    return made
