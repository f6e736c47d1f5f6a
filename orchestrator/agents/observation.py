"""The outcome of an execution in words for the model: what its code wrote, and what became of it. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.events import Execution, Files, State, Status, ToolOutcome
from orchestrator.sanitise import one_line, sanitise

# smolagents' figures: its local executor keeps 50,000 characters of prints, its agent 20,000 of a value.
DEFAULT_MAX_PRINT_OUTPUTS_LENGTH = 50_000
MAX_VALUE_LENGTH = 20_000
MAX_ERROR_LENGTH = 10_000  # a traceback is trimmed in the sandbox already; the message in it may be anything
MAX_REASON_LENGTH = 300  # why files or a state could not be restored: a sentence

_STOPPED = {
    Status.TIMEOUT: "The code was stopped: it ran longer than its time limit.",
    Status.INTERRUPTED: "The code was interrupted from outside.",
    Status.OUT_OF_MEMORY: "The code was stopped: it used more memory than it may.",
    Status.DIED: "The Python process that ran the code ended before the code did (it crashed or exited).",
    Status.OUTPUT_LIMIT: "The code was stopped: it wrote more output than it may.",
}
MAX_CALLS_NAMED = 10  # tool calls of unknown outcome that are named one by one
_KEPT = "What it did until then is kept."
_GONE = "All variables, functions and imports are gone: define again what you need."


@dataclass(frozen=True, slots=True)
class Observation:
    """``text`` and ``error`` are the sandbox's, made safe to show; ``remarks`` are the host's own."""

    text: str
    remarks: str
    error: str | None


def observe(execution: Execution, max_print_outputs_length: int, *, not_undone: str | None = None) -> Observation:
    """What to tell the model about ``execution``.

    Args:
        execution: the outcome.
        max_print_outputs_length: prints beyond that many characters are left out of their middle.
        not_undone: why its work could not be taken back, if that was tried in vain.
    """
    logs = execution.logs.stdout
    if execution.logs.stderr:
        logs = f"{logs.rstrip()}\n[stderr]\n{execution.logs.stderr}".lstrip()
    parts = []
    printed, is_cut = _bounded(logs, max_print_outputs_length)
    if logs:
        parts.append(f"Execution logs:\n{printed}")
    if execution.ok and execution.final_answer is None:
        parts.append(f"Last output from code snippet:\n{shown(execution.text or 'None', MAX_VALUE_LENGTH)}")
    return Observation("\n".join(parts), _remarks(execution, not_undone, is_cut), _error(execution))


def truncate(text: str, limit: int) -> str:
    """``text``, or its head and tail of ``limit`` characters together and a line between that says what is missing."""
    if len(text) <= limit:
        return text
    head, tail = text[: limit - limit // 2], text[len(text) - limit // 2 :]
    return _without_middle(head, len(text) - limit, tail)


def _without_middle(head: str, missing: int, tail: str) -> str:
    return f"{head}\n[… {missing} characters left out …]\n{tail}"


def shown(text: str, limit: int) -> str:
    """``text`` as a model and a terminal may be shown it: safe, and without its middle if it is long."""
    return _bounded(text, limit)[0]


def _bounded(text: str, limit: int) -> tuple[str, bool]:
    """The text as it may be shown, and whether something of it is not.

    Cut before it is made safe, which takes its time with megabytes, and again after that, as it can make text longer.
    """
    text = text.rstrip()
    if len(text) <= limit:
        safe = sanitise(text).rstrip()
        return truncate(safe, limit), len(safe) > limit
    ends = limit - limit // 2, limit // 2
    head, tail = sanitise(text[: ends[0]])[: ends[0]], sanitise(text[len(text) - ends[1] :])
    return _without_middle(head, len(text) - limit, tail[len(tail) - min(len(tail), ends[1]) :]), True


def _remarks(execution: Execution, not_undone: str | None, is_cut: bool) -> str:
    lines = []
    if execution.status in _STOPPED:
        lines.append(_STOPPED[execution.status])
    if not_undone is not None:
        lines.append(f"It could not be undone{_reason(not_undone)}: variables and files are as this code left them.")
    elif execution.status in _STOPPED or execution.state is not State.KEPT:
        lines.append(_state(execution))
    if execution.outcome_unknown:
        lines.append(_unknown(execution.outcome_unknown))
    if is_cut:  # said here, where it is the host's word: a line like that in the middle can be printed by anybody
        lines.append("What it printed is shown in part: the middle is left out.")
    if execution.logs.dropped_bytes:
        lines.append(f"{execution.logs.dropped_bytes} bytes of its output were not kept.")
    return "\n".join(lines)


def _unknown(calls: Sequence[ToolOutcome]) -> str:
    """The names are those of tools that are granted: others are never called."""
    named = ", ".join(f"{call.name}()" for call in calls[:MAX_CALLS_NAMED])
    more = f" and {len(calls) - MAX_CALLS_NAMED} more" if len(calls) > MAX_CALLS_NAMED else ""
    return (
        f"These tool calls had not ended when they were given up: {named}{more}. Whether they took effect is not "
        "known: find out before you make them again."
    )


def _state(execution: Execution) -> str:
    match execution.state:
        case State.KEPT:
            return _KEPT
        case State.RESTORED:
            return f"All {_as_they_were(execution, 'before this code ran')}"
        case State.LOST if execution.restored_to:
            then = _as_they_were(execution, f"at the end of execution {execution.restored_to}")
            return f"The state from before this code is lost; {then}"
        case State.LOST:
            return _GONE


def _as_they_were(execution: Execution, when: str) -> str:
    if execution.files is Files.RESTORED:
        return f"variables and files are as they were {when}."
    files = f"files are as the code left them{_reason(execution.files_reason)}"
    return f"variables are as they were {when}; {files}."


def _reason(reason: str) -> str:
    """In parentheses, if there is one. It may quote the sandbox: file names, say."""
    shown = one_line(reason, MAX_REASON_LENGTH)
    return f" ({shown})" if shown else ""


def _error(execution: Execution) -> str | None:
    if execution.error is not None:
        return shown(str(execution.error), MAX_ERROR_LENGTH)
    return None if execution.ok else _STOPPED.get(execution.status, "The code failed.")
