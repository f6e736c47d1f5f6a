"""Runs recorded code again in a new sandbox, so that its variables are there again. No tool is called for it.

What is random, or depends on the time, on addresses or on the order of threads, comes out otherwise; where the output
shows it, it is told.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.agents.recording import RecordedAction, Recording
from orchestrator.agents.steps import NoteStep
from orchestrator.agents.tape import CallEnd, RecordedCall, ReplayingTape
from orchestrator.errors import SandboxError
from orchestrator.events import Execution, Files, State, Status
from orchestrator.sandbox.any_sandbox import AnySandbox
from orchestrator.sanitise import one_line

MAX_NAMED = 10  # differences, or calls, that are told one by one
MAX_SHOWN = 200  # characters of a call's arguments, or of its result
_FILES = "the files are those that a step which you are not shown has left"
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")  # in the repr of objects: another one in each process
_STOPPED = {
    Status.TIMEOUT: "ran longer than its time limit",
    Status.OUTPUT_LIMIT: "wrote more output than it may",
    Status.OUT_OF_MEMORY: "used more memory than it may",
}
Execute = Callable[[str, Mapping[str, Any], ReplayingTape], Awaitable[Execution]]


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """What making a state again came to.

    Attributes:
        actions: how many were run again.
        differences: from the state that was, in words.
        counts: the new counts of executions, by the numbers of actions.
        sandbox: the name of the one that has the state now; empty if it is not known.
        is_same: it is the sandbox that there was, and nothing was to be run again.
    """

    actions: int = 0
    differences: tuple[str, ...] = ()
    counts: tuple[tuple[int, int], ...] = ()
    sandbox: str = ""
    is_same: bool = False


async def rebuild(actions: Sequence[RecordedAction], execute: Execute) -> Rebuilding:
    """Runs them, in order; see ``run_again``."""
    counts: list[tuple[int, int]] = []
    differences: list[str] = []
    for action in actions:
        tape = ReplayingTape(action.calls)
        execution = await execute(action.step.code_action or "", action.variables, tape)
        counts.append((action.number, execution.execution_count))
        differences += [f"{action.label} {difference}" for difference in _differences(action, execution, tape)]
        if execution.state is not State.KEPT:
            differences.append(f"{action.label} lost its variables and perhaps those before")
    return Rebuilding(len(counts), tuple(differences), tuple(counts))


async def gone_back(sandbox: AnySandbox, recording: Recording) -> Rebuilding | None:
    """Back to where the recorded steps had left a sandbox that was kept; nothing if that state is not there any more.

    What the step under way had done is undone with it.
    """
    if not _is_the_runs(sandbox, recording):
        return None
    with suppress(SandboxError):
        are_restored = await _restored(sandbox, recording)
        late = [loss.what for loss in recording.late if are_restored or not loss.of_files]
        return Rebuilding(differences=(*late, *([_FILES] if are_restored is False else [])), is_same=True)
    return None


def _is_the_runs(sandbox: AnySandbox, recording: Recording) -> bool:
    """One that the record does not tell of may be what is left of a rebuilding that a crash has ended."""
    is_named = recording.sandbox and sandbox.name == recording.sandbox
    return bool(is_named) and sandbox.last_execution >= recording.last


async def _restored(sandbox: AnySandbox, recording: Recording) -> bool | None:
    """Whether the files went back with the variables; None where nothing had to be undone."""
    kept = await sandbox.checkpoints()
    current = next((checkpoint for checkpoint in kept if checkpoint.is_current), None)
    if current is None or current.execution_count != recording.count:
        return (await sandbox.rollback(recording.count)).files is Files.RESTORED
    was_undone = sandbox.last_execution > recording.last  # the step under way was killed, and the executor went back
    return current.has_files if was_undone else None


def _differences(action: RecordedAction, now: Execution, tape: ReplayingTape) -> Iterable[str]:
    then = action.step.execution
    assert then
    for name in dict.fromkeys(tape.misses):
        yield f"called {_name(name)}(), and there is no recorded result for that"
    for name in dict.fromkeys(tape.left):
        yield f"did not call {_name(name)}() as it had"
    for call in then.outcome_unknown:
        yield f"had given up waiting for {_name(call.name)}()"
    if now.status is not then.status:
        yield f"ended with {now.status} and not with {then.status}"
    elif now.status in _STOPPED:
        yield f"was stopped, as it {_STOPPED[now.status]}; perhaps not at the same point"
    elif not tape.misses and _shown(now) != _shown(then):
        yield "printed or gave something else than it had"


def _shown(execution: Execution) -> list[str]:
    texts = (execution.logs.stdout, execution.logs.stderr, execution.text or "", str(execution.error or ""))
    return [_ADDRESS.sub("0x…", text) for text in texts]


def _name(name: str) -> str:
    return one_line(name, MAX_SHOWN)


def told(differences: Sequence[str], calls: Sequence[RecordedCall]) -> NoteStep | None:
    """What the model is told, in the host's words; nothing if all is as it was."""
    lines = []
    if differences:
        lines.append("The program was stopped and has been started again. Variables and files may differ:")
        lines += _listed(differences)
        lines.append("Look at what you need before you rely on it.")
    if calls:
        lines.append("A step that you are not shown had not ended. Its code had called these tools:")
        lines += _listed([_call(call) for call in calls])
        lines.append("What has ended is done: do not call it again without need.")
    return NoteStep("\n".join(lines)) if lines else None


def _listed(items: Sequence[str]) -> list[str]:
    more = [f"- and {len(items) - MAX_NAMED} more"] if len(items) > MAX_NAMED else []
    return [f"- {item}" for item in items[:MAX_NAMED]] + more


def _call(call: RecordedCall) -> str:
    given = [*map(repr, call.args), *(f"{name}={value!r}" for name, value in call.kwargs.items())]
    return f"{_name(call.name)}({one_line(', '.join(given), MAX_SHOWN)}): {_end(call.end)}"


def _end(end: CallEnd | None) -> str:
    match end:
        case CallEnd("value", value):
            return f"it gave {one_line(repr(value), MAX_SHOWN)}"
        case CallEnd("error", _, error, message):
            return f"it failed with {one_line(f'{error}: {message}', MAX_SHOWN)}"
        case CallEnd():
            return "it ended, and what it gave is not known"
        case None:
            return "whether it took effect is not known: find out before you call it again"
