"""What a run is given: the task, pictures, values for the code; checked before anything is done."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from orchestrator.agents.arrival import type_in_words
from orchestrator.errors import AgentError
from orchestrator.media import AgentImage, Media
from orchestrator.sanitise import one_line

MAX_IMAGES = 64  # of one task; providers take some dozens
MAX_SHOWN = 200  # characters of a value in the task's text: the whole of it is in the variable
_ONE = (str, bytes, Path, Media, Mapping)  # can be gone through, but are no pictures then


@dataclass(frozen=True, slots=True)
class Given:
    """The input of one run.

    Raises:
        AgentError: it cannot be right; the message says what to change.
    """

    task: str
    images: tuple[AgentImage, ...] = ()
    additional_args: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, task: object, images: Iterable[Any] | None = None, additional_args: Mapping[str, Any] | None = None
    ) -> Self:
        """Of the arguments of ``run``; ``images`` may be of Pillow, paths, or encoded bytes."""
        if images is not None and (isinstance(images, _ONE) or not isinstance(images, Iterable)):
            raise AgentError(f"images is a list of pictures, also for a single one, not {type(images).__name__}")
        pictures = tuple(AgentImage.of(image) for image in images or ())
        if len(pictures) > MAX_IMAGES:
            raise AgentError(f"images has {len(pictures)} pictures; at most {MAX_IMAGES} can be shown")
        if additional_args is not None and not isinstance(additional_args, Mapping):
            raise AgentError(f"additional_args is a dict from name to value, not {type(additional_args).__name__}")
        return cls(checked_task(task), pictures, _checked_names(additional_args or {}))

    def text(self, shown_type: Callable[[Any], str] = type_in_words) -> str:
        """The task as the model is told it, with names, types and beginnings of the additional values."""
        if not self.additional_args:
            return self.task
        lines = [f"- {name} ({shown_type(value)}): {_short(value)}" for name, value in self.additional_args.items()]
        return "\n".join(
            (self.task, "You have been provided with these additional arguments, as variables of these names:", *lines)
        )


def checked_task(task: object) -> str:
    """``task``, if it is a text that says something.

    Raises:
        AgentError: it is not.
    """
    if not isinstance(task, str) or not task.strip():
        raise AgentError(f"a task is a text that says what to do, not {task!r}")
    return task


def checked_max_steps(max_steps: int) -> int:
    """``max_steps``, if it allows a step.

    Raises:
        AgentError: it does not.
    """
    if not isinstance(max_steps, int) or isinstance(max_steps, bool) or max_steps < 1:
        raise AgentError(f"max_steps is {max_steps!r}; it must be a whole number, at least 1")
    return max_steps


def _checked_names(values: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in values:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise AgentError(f"additional_args: {name!r} cannot be a variable; use a Python identifier")
    return dict(values)


def _short(value: Any) -> str:
    """The beginning of its repr. It is the developer's own object: what its repr raises is theirs to see."""
    return one_line(repr(value), MAX_SHOWN)
