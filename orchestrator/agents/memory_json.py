"""Steps and memories as JSON and back.

A file may have been in anybody's hands: it is bounded, checked part by part, and nothing in it is evaluated. It holds
whatever was said and seen in a run, so it is made readable for its owner alone. What is lost is said in value_json.py;
the messages that a model is shown are the very same afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.agents.dataclass_json import read_record, written_record
from orchestrator.agents.memory import AgentMemory
from orchestrator.agents.steps import (
    ActionStep,
    KeptStep,
    MemoryStep,
    NoteStep,
    PlanningStep,
    SystemPromptStep,
    TaskStep,
)
from orchestrator.agents.value_json import one_file
from orchestrator.errors import AgentError
from orchestrator.sanitise import one_line

FORMAT, VERSION = "cellblock-memory", 1
MAX_BYTES = 256 << 20  # of a file: hundreds of pictures, and all that was printed in a thousand steps
MAX_STEPS = 100_000  # more than any run has; a file of as many tiny ones is no memory
MAX_TAG = 1_000  # characters of what stands around code
MAX_SHOWN = 200  # characters of what is wrong with a file: it may quote it
_KINDS: Mapping[str, type[Any]] = {
    "system_prompt": SystemPromptStep,
    "task": TaskStep,
    "planning": PlanningStep,
    "action": ActionStep,
    "note": NoteStep,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_FENCE = re.compile(r"[\w-]{1,64}", re.ASCII)


def step_to_dict(step: MemoryStep) -> dict[str, Any]:
    """The step as ``json`` can write it, with its ``kind``."""
    return {"kind": _NAMES[type(step)], **written_record(step)}


def step_from_dict(data: Mapping[str, Any]) -> MemoryStep:
    """The step that ``step_to_dict`` wrote.

    Raises:
        AgentError: it is none.
    """
    with reading("a step"):
        step: MemoryStep = read_step(data)
    return step


def read_step(data: object) -> Any:
    """As ``step_from_dict``, inside ``reading``."""
    if not isinstance(data, dict) or data.get("kind") not in _KINDS:
        raise ValueError("a step is an object whose kind is one of " + ", ".join(_KINDS))
    step = read_record(_KINDS[data["kind"]], {name: part for name, part in data.items() if name != "kind"})
    check_marks(step)
    return step


def check_marks(step: object) -> None:
    """That what stands in a step's fence cannot leave it, and that its code can be looked for.

    Raises:
        ValueError: the fence is no name, or there is nothing in the tags.
    """
    if not isinstance(step, ActionStep):
        return
    if not _FENCE.fullmatch(step.fence):
        raise ValueError("the fence of a step is no name")
    tags = step.code_tags
    if tags and not all(tag.strip() and len(tag) <= MAX_TAG for tag in (tags.opening, tags.closing)):
        raise ValueError("the tags of a step are none")


def read_kept_step(data: object) -> KeptStep:
    """The same, of a step that is kept behind the system prompt."""
    step = read_step(data)
    if isinstance(step, SystemPromptStep):
        raise ValueError("a system prompt among the steps")
    kept: KeptStep = step
    return kept


def memory_to_dict(memory: AgentMemory) -> dict[str, Any]:
    """The memory as ``json`` can write it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "system_prompt": memory.system_prompt.system_prompt,
        "steps": [step_to_dict(step) for step in memory.steps],
        "view": written_view(memory),
    }


def memory_from_dict(data: object) -> AgentMemory:
    """The memory that ``memory_to_dict`` wrote.

    Raises:
        AgentError: it is none, or one of a version that is not known here.
    """
    with reading("a memory"):
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        if data.get("version") != VERSION:
            raise ValueError(f"its version is {data.get('version')!r}; this program reads {VERSION}")
        prompt, steps = data["system_prompt"], data["steps"]
        if not isinstance(prompt, str) or not isinstance(steps, list) or len(steps) > MAX_STEPS:
            raise ValueError("its system prompt is no text, or its steps are no list, or too many")
        memory = AgentMemory(prompt)
        memory.steps = [read_kept_step(step) for step in steps]
        read_view(memory, data.get("view"))
        return memory


def written_view(memory: AgentMemory) -> Mapping[str, Any] | None:
    """What the model is shown in the place of the first steps; those that are shown as they are by their numbers."""
    covered, shown = memory.view
    if not covered and not shown:
        return None
    places = {id(step): place for place, step in enumerate(covered)}
    return {"covered": len(covered), "shown": [_shown(step, places) for step in shown]}


def _shown(step: KeptStep, places: Mapping[int, int]) -> Any:
    return places[id(step)] if id(step) in places else step_to_dict(step)


def read_view(memory: AgentMemory, data: object) -> None:
    """Puts into ``memory`` what ``written_view`` wrote, inside ``reading``."""
    if data is None:
        return
    if not isinstance(data, dict) or type(data.get("covered")) is not int or not isinstance(data.get("shown"), list):
        raise ValueError("what is shown of it cannot be read")
    covered, shown = data["covered"], data["shown"]
    if not 0 <= covered <= len(memory.steps) or len(shown) > MAX_STEPS:
        raise ValueError("what is shown of it stands for more steps than there are")
    memory.show(
        [memory.steps[range(covered)[part]] if type(part) is int else read_kept_step(part) for part in shown], covered
    )


def save(memory: AgentMemory, path: str | Path) -> None:
    """Writes the memory to a file, whole or not at all.

    Raises:
        AgentError: the file cannot be written.
    """
    target = Path(path)
    text = json.dumps(memory_to_dict(memory), allow_nan=False)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise AgentError(f"the memory cannot be written to {target}: {error.strerror}") from None


def load(path: str | Path) -> AgentMemory:
    """The memory that ``save`` wrote.

    Raises:
        AgentError: the file cannot be read, is too large, or is no memory.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise AgentError(f"the memory cannot be read from {path}: {error.strerror}") from None
    with reading(str(path)), one_file():
        if len(data) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        return memory_from_dict(parsed(data))


def parsed(data: bytes) -> Any:
    """What ``data`` says, inside ``reading``."""
    return json.loads(data, parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """What is wrong with what is read inside becomes an AgentError that says so."""
    try:
        yield
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise AgentError(f"{what} cannot be read: {one_line(str(error), MAX_SHOWN)}") from None
