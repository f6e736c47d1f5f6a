"""What a session says: about executions, states, sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.events import Execution, ExecutionError, Files, State, Status
from orchestrator.repl.words import age, ending, row, size, went_back
from orchestrator.sandbox.state import Checkpoint, Rollback

STOPPED = ExecutionError("TimeoutError", "the code ran longer than 30 s and was stopped; all variables are as before")
TIMEOUT = Execution(Status.TIMEOUT, State.RESTORED, 3, error=STOPPED, restored_to=2, files=Files.RESTORED)
CAUSE = "the code ran longer than 30 s and was stopped"


@pytest.mark.parametrize("status", [Status.OK, Status.ERROR, Status.IMPORT_DENIED])
def test_what_came_to_its_own_end_needs_no_words(status: Status) -> None:
    assert ending(Execution(status, State.KEPT, 1)) == ""


@pytest.mark.parametrize(
    ("execution", "words"),
    [
        (TIMEOUT, "variables and files are as they were before it"),
        (replace(TIMEOUT, state=State.KEPT), "variables and files are as it left them"),
        (
            replace(TIMEOUT, files=Files.KEPT, files_reason="more than 64m"),
            "variables are as they were before it, files are as they are now (more than 64m)",
        ),
        (replace(TIMEOUT, files=Files.KEPT), "variables are as they were before it, files are as they are now"),
        (replace(TIMEOUT, state=State.LOST, restored_to=1), "variables are as they were after execution 1"),
        (replace(TIMEOUT, state=State.LOST, restored_to=0), "the variables are lost"),
    ],
)
def test_what_was_stopped_says_why_and_what_became_of_the_state(execution: Execution, words: str) -> None:
    assert ending(execution) == f"{CAUSE}; {words}"


def test_a_state_that_was_lost_before_is_told_also_where_the_code_went_well() -> None:
    execution = Execution(Status.OK, State.LOST, 3, restored_to=1)
    assert ending(execution) == (
        "the state from before it had been lost already; variables are as they were after execution 1"
    )


def test_a_rollback_says_what_became_of_the_files() -> None:
    rollback = Rollback(Checkpoint(1, "clean", 4), Files.RESTORED)
    assert went_back(rollback) == "back at 'clean' (execution 4): variables and files are as they were then"
    rollback = Rollback(Checkpoint(1, "", 4), Files.KEPT, "too large")
    assert went_back(rollback) == (
        "back at execution 4: variables are as they were then, files are as they are now (too large)"
    )


def test_a_checkpoint_as_a_row() -> None:
    checkpoint = Checkpoint(7, "clean", 4, 3, 75.0, 3 << 19, False, True)
    assert row(checkpoint) == ("clean", "4", "1 min", "1.5 MiB", "no", "*")
    assert row(Checkpoint(7, "", 0)) == ("-", "0", "0 s", "?", "yes", "")


def test_sizes_and_ages() -> None:
    assert [age(seconds) for seconds in (0.4, 59, 60, 7300, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]
    assert [size(count) for count in (0, 12, 2048, 1 << 30)] == ["?", "12 B", "2.0 KiB", "1.0 GiB"]
