"""What the model is told about an execution."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agents.observation import MAX_CALLS_NAMED, MAX_REASON_LENGTH, MAX_VALUE_LENGTH, observe, truncate
from orchestrator.events import Ending, Execution, ExecutionError, Files, FinalAnswer, Logs, State, Status, ToolOutcome


def seen(limit: int = 1000, **fields: object) -> tuple[str, str, str | None]:
    defaults: dict[str, object] = {"status": Status.OK, "state": State.KEPT, "execution_count": 1}
    observation = observe(Execution(**(defaults | fields)), limit)  # type: ignore[arg-type]
    return observation.text, observation.remarks, observation.error


def test_logs_and_value() -> None:
    assert seen(logs=Logs("a\n"), text="1") == ("Execution logs:\na\nLast output from code snippet:\n1", "", None)
    assert seen() == ("Last output from code snippet:\nNone", "", None)
    assert seen(logs=Logs("a\n", "warning\n"), text="1")[0].startswith("Execution logs:\na\n[stderr]\nwarning\nLast")
    assert seen(logs=Logs("", "warning\n"))[0].startswith("Execution logs:\n[stderr]\nwarning\nLast")


def test_a_final_answer_has_no_last_output() -> None:
    assert seen(final_answer=FinalAnswer(1), logs=Logs("a")) == ("Execution logs:\na", "", None)


def test_an_error_with_its_traceback() -> None:
    error = ExecutionError("ValueError", "bad", 'line 2, in <module>\n    f("\x1b[31m")\nValueError: bad')
    text, remarks, message = seen(status=Status.ERROR, error=error, logs=Logs("a"))
    assert text == "Execution logs:\na"
    assert remarks == ""
    assert message == 'line 2, in <module>\n    f("")\nValueError: bad'


def test_a_flood_of_what_has_to_be_written_out_is_cut_before_that() -> None:
    """It would be made up to ten times as long first, megabytes of it, and on the event loop."""
    text, remarks, _ = seen(limit=100, logs=Logs("\x01" * 3_000_000), text="\u202e" * 3_000_000)
    assert len(text) < 100 + MAX_VALUE_LENGTH + 300
    assert 20 < text.count("\\x01") <= 100 // 4
    assert "the middle is left out" in remarks


@pytest.mark.parametrize(
    "status", [s for s in Status if s not in (Status.OK, Status.ERROR, Status.IMPORT_DENIED, Status.REFUSED)]
)
@pytest.mark.parametrize(
    ("state", "words"),
    [(State.KEPT, "is kept"), (State.RESTORED, "as they were before"), (State.LOST, "are gone")],
)
def test_a_stopped_execution_is_told_plainly(status: Status, state: State, words: str) -> None:
    _, remarks, error = seen(status=status, state=state)
    assert remarks.startswith("The ")
    assert words in remarks
    assert error


def test_calls_of_unknown_effect_are_named_and_a_flood_of_them_is_counted() -> None:
    def calls(count: int, ending: Ending) -> tuple[ToolOutcome, ...]:
        return tuple(ToolOutcome(i, f"tool{i}", "no", 0.1, ending) for i in range(count))

    for ending in (Ending.OK, Ending.FAILED, Ending.REFUSED):
        assert seen(tool_calls=calls(3, ending))[1] == ""
    for ending in (Ending.TIMED_OUT, Ending.CANCELLED):
        remarks = seen(tool_calls=calls(2, ending))[1]
        assert remarks.startswith("These tool calls had not ended when they were given up: tool0(), tool1(). Whether")
    remarks = seen(tool_calls=calls(5000, Ending.TIMED_OUT))[1]
    assert f"tool{MAX_CALLS_NAMED - 1}() and {5000 - MAX_CALLS_NAMED} more." in remarks
    assert len(remarks) < 1000


RESTORED = "All variables and files are as they were before this code ran."


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"state": State.RESTORED, "files": Files.RESTORED}, RESTORED),
        (
            {"state": State.RESTORED, "files_reason": "the workspace holds more than 16 MiB"},
            "All variables are as they were before this code ran; files are as the code left them "
            "(the workspace holds more than 16 MiB).",
        ),
        (
            {"state": State.RESTORED},
            "All variables are as they were before this code ran; files are as the code left them.",
        ),
        (
            {"state": State.LOST, "restored_to": 3, "files": Files.RESTORED},
            "The state from before this code is lost; variables and files are as they were at the end of execution 3.",
        ),
        (
            {"state": State.LOST, "restored_to": 3, "files_reason": "too large"},
            "The state from before this code is lost; variables are as they were at the end of execution 3; "
            "files are as the code left them (too large).",
        ),
        ({"state": State.LOST, "restored_to": 0}, "All variables, functions and imports are gone: define again"),
        ({"state": State.LOST}, "All variables, functions and imports are gone: define again"),
    ],
)
def test_what_became_of_the_state_is_told(fields: dict[str, object], words: str) -> None:
    remarks = seen(status=Status.DIED, **fields)[1].split("\n")[1]
    assert remarks.startswith(words)
    assert seen(status=Status.ERROR, **fields)[1] == remarks


def test_a_reason_is_one_short_safe_line() -> None:
    _, remarks, _ = seen(state=State.RESTORED, files_reason="a\nSYSTEM:\x1b[2J \u202e" + "x" * 5000)
    assert "(a SYSTEM: \\u202exxx" in remarks
    assert "\n" not in remarks
    assert len(remarks) < MAX_REASON_LENGTH + 120


def test_an_undo_that_failed_is_told_instead_of_what_it_would_have_done() -> None:
    error = ExecutionError("ValueError", "bad")
    remarks = observe(Execution(Status.ERROR, State.KEPT, 1, error=error), 100, not_undone="threads\nare alive").remarks
    assert remarks == "It could not be undone (threads are alive): variables and files are as this code left them."
    stopped = observe(Execution(Status.TIMEOUT, State.KEPT, 1), 100, not_undone="").remarks
    assert stopped == (
        "The code was stopped: it ran longer than its time limit.\n"
        "It could not be undone: variables and files are as this code left them."
    )


def test_lost_output_is_told() -> None:
    assert "12 bytes" in seen(logs=Logs("a", dropped_bytes=12))[1]


def test_long_texts_keep_head_and_tail() -> None:
    text, _, _ = seen(limit=100, logs=Logs("a" * 500 + "z" * 500), text="v" * (MAX_VALUE_LENGTH + 1))
    assert f"{'a' * 50}\n[… 900 characters left out …]\n{'z' * 50}" in text
    assert "[… 1 characters left out …]" in text


@given(st.text(), st.integers(1, 50))
def test_truncate_keeps_both_ends(text: str, limit: int) -> None:
    short = truncate(text, limit)
    assert short.startswith(text[: limit - limit // 2])
    assert short.endswith(text[len(text) - limit // 2 :])
    assert (short == text) is (len(text) <= limit)
