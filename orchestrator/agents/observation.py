"""The outcome of an execution in words for the model: what its code wrote, and what became of it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.agents.sanitise import sanitise
from orchestrator.events import Execution, State, Status

# smolagents' figures: its local executor keeps 50,000 characters of prints, its agent 20,000 of a value.
DEFAULT_MAX_PRINT_OUTPUTS_LENGTH = 50_000
MAX_VALUE_LENGTH = 20_000
MAX_ERROR_LENGTH = 10_000  # a traceback is trimmed in the sandbox already; the message in it may be anything

_STOPPED = {
    Status.TIMEOUT: "The code was stopped: it ran longer than its time limit.",
    Status.INTERRUPTED: "The code was interrupted from outside.",
    Status.OUT_OF_MEMORY: "The code was stopped: it used more memory than it may.",
    Status.DIED: "The Python process that ran the code ended before the code did (it crashed or exited).",
    Status.OUTPUT_LIMIT: "The code was stopped: it wrote more output than it may.",
}
_STATE = {
    State.KEPT: "What it did until then is kept.",
    State.RESTORED: "All variables are as they were before this code ran.",
    State.LOST: "All variables, functions and imports are gone: define again what you need.",
}


@dataclass(frozen=True, slots=True)
class Observation:
    """``text`` and ``error`` are the sandbox's, made safe to show; ``remarks`` are the host's own."""

    text: str
    remarks: str
    error: str | None


def observe(execution: Execution, max_print_outputs_length: int) -> Observation:
    """What to tell the model about ``execution``. Prints beyond that many characters are left out of their middle."""
    logs = execution.logs.stdout
    if execution.logs.stderr:
        logs = f"{logs.rstrip()}\n[stderr]\n{execution.logs.stderr}".lstrip()
    parts = []
    if logs:
        parts.append(f"Execution logs:\n{_shown(logs, max_print_outputs_length)}")
    if execution.ok and execution.final_answer is None:
        parts.append(f"Last output from code snippet:\n{_shown(execution.text or 'None', MAX_VALUE_LENGTH)}")
    return Observation("\n".join(parts), _remarks(execution), _error(execution))


def truncate(text: str, limit: int) -> str:
    """``text``, or its head and tail of ``limit`` characters together and a line between that says what is missing."""
    if len(text) <= limit:
        return text
    head, tail = text[: limit - limit // 2], text[len(text) - limit // 2 :]
    return f"{head}\n[… {len(text) - limit} characters left out …]\n{tail}"


def _shown(text: str, limit: int) -> str:
    return truncate(sanitise(text).rstrip(), limit)


def _remarks(execution: Execution) -> str:
    lines = []
    if execution.status in _STOPPED:
        lines += [_STOPPED[execution.status], _STATE[execution.state]]
    elif execution.state is not State.KEPT:
        lines.append(_STATE[execution.state])
    if execution.logs.dropped_bytes:
        lines.append(f"{execution.logs.dropped_bytes} bytes of its output were not kept.")
    return "\n".join(lines)


def _error(execution: Execution) -> str | None:
    if execution.error is not None:
        return _shown(str(execution.error), MAX_ERROR_LENGTH)
    return None if execution.ok else _STOPPED.get(execution.status, "The code failed.")
