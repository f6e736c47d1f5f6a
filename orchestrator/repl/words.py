"""What happened, in words: executions that were stopped, going back, sizes and ages."""

from __future__ import annotations

from orchestrator.events import Execution, Files, State, Status
from orchestrator.sandbox.state import Checkpoint, Rollback

_RAISED = (Status.OK, Status.ERROR, Status.IMPORT_DENIED)  # the code came to its own end; a traceback says the rest
_AGES = ((86400, "d"), (3600, "h"), (60, "min"))
_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def ending(execution: Execution) -> str:
    """How an execution ended and what became of the state; empty if it came to its own end and all is kept."""
    if execution.state is State.KEPT and execution.status in _RAISED:
        return ""
    return f"{_cause(execution)}; {_state(execution)}"


def _cause(execution: Execution) -> str:
    if execution.error is None or execution.status in _RAISED:
        return "the state from before it had been lost already"
    return execution.error.value.partition("; ")[0]


def _state(execution: Execution) -> str:
    match execution.state:
        case State.KEPT:
            return "variables and files are as it left them"
        case State.RESTORED if execution.files is Files.RESTORED:
            return "variables and files are as they were before it"
        case State.RESTORED:
            return f"variables are as they were before it, {_kept_files(execution.files_reason)}"
        case State.LOST if execution.restored_to:
            return f"variables are as they were after execution {execution.restored_to}"
    return "the variables are lost"


def went_back(rollback: Rollback) -> str:
    """Where a rollback led, and what became of variables and files."""
    if rollback.files is Files.RESTORED:
        return f"back at {rollback.checkpoint}: variables and files are as they were then"
    return f"back at {rollback.checkpoint}: variables are as they were then, {_kept_files(rollback.files_reason)}"


def _kept_files(reason: str) -> str:
    return "files are as they are now" + (f" ({reason})" if reason else "")


def row(checkpoint: Checkpoint) -> tuple[str, ...]:
    """A checkpoint as a line of a table: name, execution, age, memory held, files, current."""
    return (
        checkpoint.name or "-",
        str(checkpoint.execution_count),
        age(checkpoint.age),
        size(checkpoint.memory_bytes),
        "yes" if checkpoint.has_files else "no",
        "*" if checkpoint.is_current else "",
    )


def age(seconds: float) -> str:
    """A span of time in its largest whole unit."""
    for unit, name in _AGES:
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{seconds:.0f} s"


def size(count: int) -> str:
    """Bytes in their largest unit; 0 is what was not measured."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} B" if count else "?"
