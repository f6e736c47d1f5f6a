"""What happens to the state when an action fails: it is kept as the code left it, or it goes back to before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from orchestrator.errors import AgentError, CheckpointError
from orchestrator.events import Execution, State
from orchestrator.sandbox.any_sandbox import AnySandbox

OnError = Literal["keep", "rollback"]


@dataclass(frozen=True, slots=True)
class Settled:
    """An execution as it is remembered. ``not_undone`` says why a rollback that was wanted could not be had."""

    execution: Execution
    not_undone: str | None = None


def checked_on_error(on_error: OnError) -> OnError:
    """The value, if it is one of those that there are.

    Raises:
        AgentError: it is not.
    """
    if on_error not in get_args(OnError):
        allowed = " or ".join(map(repr, get_args(OnError)))
        raise AgentError(f"on_error is {on_error!r}; it must be {allowed}")
    return on_error


def is_undoable(execution: Execution) -> bool:
    """Whether it failed and its work is still there.

    One with the count 0 never ran (its code was too long to be sent): undoing would take back what was before it.
    """
    return not execution.ok and execution.state is State.KEPT and execution.execution_count > 0


async def undone(sandbox: AnySandbox, execution: Execution) -> Settled:
    """Takes back the work of ``execution``, the last one of ``sandbox``; it then has the state ``restored``.

    Raises:
        SandboxDied, ProtocolViolation: the sandbox failed meanwhile. That there is no state to go back to is no error.
    """
    try:
        rollback = await sandbox.undo(execution.execution_count)  # not what the owner of a borrowed one did since
    except CheckpointError as error:
        return Settled(execution, str(error))
    restored = replace(
        execution,
        state=State.RESTORED,
        restored_to=rollback.checkpoint.execution_count,
        files=rollback.files,
        files_reason=rollback.files_reason,
    )
    return Settled(restored)
