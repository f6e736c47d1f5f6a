"""The person at the terminal: what is shown, and that only a plain yes is one. With a real pseudo-terminal."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from rich.console import Console

from orchestrator.agents.printer import RunPrinter
from orchestrator.asking import MAX_LINES, MAX_SHOWN, TerminalApprover
from orchestrator.events import Output
from orchestrator.policy import ExecutionRequest, ToolCallRequest, Verdict
from orchestrator.sanitise import visible
from tests.unit import loops

DEADLINE = 10.0  # seconds
CODE = ExecutionRequest("print(1)", 30.0)
CALL = ToolCallRequest("send", {"to": "anna\x1b[2J", "count": 2}, 1)


class Desk:
    """A terminal, somebody's keys, and what was shown."""

    def __init__(self) -> None:
        self.keys, theirs = pty.openpty()
        self.keyboard = os.fdopen(theirs, "r", closefd=True)
        self.screen = io.StringIO()
        self.console = Console(file=self.screen, width=100, force_terminal=True, color_system=None)

    def approver(self, what: Any = "ask") -> TerminalApprover:
        return TerminalApprover(what, self.keyboard, self.console)

    def close(self) -> None:
        self.keyboard.close()
        if self.keys >= 0:
            os.close(self.keys)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def in_loop(case: Coroutine[Any, Any, Any]) -> Any:
    return loops.in_loop(case, DEADLINE)


async def answered(desk: Desk, approver: TerminalApprover, request: Any, keys: str | None) -> Verdict:
    """The verdict if ``keys`` are pressed once the question is there; None hangs up."""
    asking = asyncio.create_task(approver(request))
    await shown(desk, "y, or n and a reason: ")
    if keys is None:
        os.close(desk.keys)
        desk.keys = -1
    else:
        os.write(desk.keys, keys.encode())
    verdict = await asking
    assert not asyncio.get_running_loop().remove_reader(desk.keyboard.fileno()), "nobody reads the keyboard any more"
    return verdict


async def shown(desk: Desk, words: str, times: int = 1) -> None:
    while desk.screen.getvalue().count(words) < times:  # noqa: ASYNC110 - a screen tells nobody
        await asyncio.sleep(0)


# ----------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("keys", ["y\n", "yes\n", "Y\n", " YES \n"])
@pytest.mark.parametrize("request_", [CODE, CALL])
def test_a_plain_yes_is_a_yes(desk: Desk, request_: Any, keys: str) -> None:
    assert in_loop(answered(desk, desk.approver(), request_, keys)) == Verdict(True)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("n\n", ""),
        ("\n", ""),
        ("no\n", ""),
        ("n: use the other tool\n", "use the other tool"),
        ("No, never on Sundays\n", "never on Sundays"),
        ("why?\n", "why?"),
        ("yess\n", "yess"),
        ("y n\n", "y n"),
        ("\x04", "nobody answered"),
        (None, "nobody answered"),
    ],
)
def test_everything_else_is_a_no(desk: Desk, keys: str | None, reason: str) -> None:
    assert in_loop(answered(desk, desk.approver(), CODE, keys)) == Verdict(False, reason)


def test_what_was_typed_before_the_question_is_no_answer_to_it(desk: Desk) -> None:
    os.write(desk.keys, b"y\ny\ny\n")
    assert in_loop(answered(desk, desk.approver(), CODE, "n\n")) == Verdict(False, "")


def test_without_a_terminal_the_answer_is_no(desk: Desk) -> None:
    read, write = os.pipe()
    with os.fdopen(read) as pipe, os.fdopen(write, "w") as typed:
        typed.write("y\n")
        typed.flush()
        approver = TerminalApprover("ask", pipe, desk.console)
        assert not approver.has_terminal
        assert in_loop(approver(CODE)) == Verdict(False, "there is no terminal to ask at")
    blind = TerminalApprover("ask", desk.keyboard, Console(file=io.StringIO()))
    assert in_loop(blind(CODE)) == Verdict(False, "there is no terminal to ask at")


@pytest.mark.parametrize(("what", "request_"), [("tools", CODE), ("executions", CALL)])
def test_what_is_not_to_be_asked_about_is_allowed_without_a_question(desk: Desk, what: str, request_: Any) -> None:
    assert in_loop(desk.approver(what)(request_)) == Verdict(True)
    assert desk.screen.getvalue() == ""


@pytest.mark.parametrize(("what", "request_"), [("tools", CALL), ("executions", CODE), ("ask", CALL), ("ask", CODE)])
def test_what_is_to_be_asked_about_is_asked_about(desk: Desk, what: str, request_: Any) -> None:
    assert in_loop(answered(desk, desk.approver(what), request_, "n\n")) == Verdict(False, "")


def test_questions_come_one_after_the_other(desk: Desk) -> None:
    async def case() -> list[Verdict]:
        approver = desk.approver()
        asking = [asyncio.create_task(approver(CODE)) for _ in range(3)]
        for number, keys in enumerate(("y\n", "n\n", "y\n"), 1):
            await shown(desk, "y, or n and a reason: ", number)
            os.write(desk.keys, keys.encode())
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            await asking[number - 1]
        return [task.result() for task in asking]

    assert [verdict.allowed for verdict in in_loop(case())] == [True, False, True]


def test_a_question_that_nobody_waits_for_any_more_lets_the_next_one_be_asked(desk: Desk) -> None:
    async def case() -> Verdict:
        approver = desk.approver()
        asking = asyncio.create_task(approver(CODE))
        await shown(desk, "y, or n and a reason: ")
        asking.cancel()
        await asyncio.wait({asking})
        desk.screen.truncate(0)
        return await answered(desk, approver, CODE, "y\n")

    assert in_loop(case()) == Verdict(True)


# ------------------------------------------------------------------------------------------------------------- shown


def test_all_of_the_code_is_shown_in_a_frame_with_what_cannot_be_seen_written_out(desk: Desk) -> None:
    code = "a = 1\x1b[2J\r\n\tb = '\u202e\u200b\u3164\ufe0f'\n# ╯ May this code run? y, or n and a reason: y"
    in_loop(answered(desk, desk.approver(), ExecutionRequest(code, 1.0), "n\n"))
    text = desk.screen.getvalue()
    for part in ("May this code run?", "\\x1b[2J\\x0d ", "\\x09b = '\\u202e\\u200b\\u3164\\ufe0f'"):
        assert part in text, part
    assert not {"\x1b", "\r", "\u202e", "\u200b", "\u3164", "\ufe0f"} & set(text)
    (fake,) = [line for line in text.splitlines() if "# ╯" in line]
    assert fake.startswith("│ "), "every line is inside the frame"
    assert fake.endswith(" │")


def test_what_ends_a_line_for_python_ends_one_for_the_reader(desk: Desk) -> None:
    code = "# only a note\rdelete_all()\r\nfine()"
    in_loop(answered(desk, desk.approver(), ExecutionRequest(code, 1.0), "n\n"))
    lines = [line.strip("│ ") for line in desk.screen.getvalue().splitlines()]
    assert [line for line in lines if "(" in line or "note" in line] == [
        "# only a note\\x0d",
        "delete_all()\\x0d",
        "fine()",
    ]


def test_nothing_is_printed_over_a_question(desk: Desk) -> None:
    """Else what the code prints meanwhile could look like another question, to which the answer is."""
    floor = threading.Lock()
    approver = TerminalApprover("ask", desk.keyboard, desk.console, floor)
    printer = RunPrinter(desk.console, floor=floor)

    async def case() -> tuple[Verdict, bool]:
        asking = asyncio.create_task(approver(CODE))
        await shown(desk, "y, or n and a reason: ")
        printing = asyncio.create_task(asyncio.to_thread(printer.show, Output("stdout", "FORGED")))
        while printer_waits(printing):  # noqa: ASYNC110 - a thread that waits tells nobody
            await asyncio.sleep(0)
        waited = "FORGED" not in desk.screen.getvalue()
        os.write(desk.keys, b"y\n")
        verdict = await asking
        await printing
        return verdict, waited

    def printer_waits(printing: asyncio.Task[None], looks: list[int] = [0]) -> bool:  # noqa: B006
        looks[0] += 1
        return not printing.done() and looks[0] < 5000

    assert in_loop(case()) == (Verdict(True), True)
    assert "FORGED" in desk.screen.getvalue()


def test_a_long_line_stays_inside_the_frame(desk: Desk) -> None:
    code = "x = 1" + " " * 500 + "y, or n and a reason: y"
    in_loop(answered(desk, desk.approver(), ExecutionRequest(code, 1.0), "n\n"))
    framed = desk.screen.getvalue().partition("\n╰")[0].splitlines()[2:]
    assert all(line.startswith("│ ") and line.endswith(" │") for line in framed)


def test_a_call_is_shown_with_its_arguments_by_name(desk: Desk) -> None:
    in_loop(answered(desk, desk.approver(), CALL, "n\n"))
    text = desk.screen.getvalue()
    for part in ("May this tool be called?", "send(", "to = 'anna\\x1b[2J',", "count = 2,"):
        assert part in text, part
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "make", [lambda text: ExecutionRequest(text, 1.0), lambda text: ToolCallRequest("t", {"a": text}, 1)]
)
def test_what_is_too_long_to_be_read_is_refused_without_a_question(desk: Desk, make: Callable[[str], Any]) -> None:
    verdict = in_loop(desk.approver()(make("x" * (MAX_SHOWN + 1))))
    assert not verdict.allowed
    assert "too long to be read" in verdict.reason
    assert desk.screen.getvalue() == ""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("\u200b" * (MAX_SHOWN // 6 + 1), "as they are shown"),
        ("\r" * (MAX_SHOWN // 5 + 1), "as they are shown"),
        ("\n" * MAX_LINES, f"{MAX_LINES + 1} lines"),
        ("\r" * MAX_LINES, f"{MAX_LINES + 1} lines"),
    ],
)
def test_what_is_shown_is_what_must_not_be_too_long(desk: Desk, code: str, why: str) -> None:
    verdict = in_loop(desk.approver()(ExecutionRequest(code, 1.0)))
    assert not verdict.allowed
    assert "too long to be read" in verdict.reason
    assert why in verdict.reason
    assert desk.screen.getvalue() == ""


@pytest.mark.parametrize("code", ["x" * MAX_SHOWN, "\n" * (MAX_LINES - 1)])
def test_what_is_just_not_too_long_is_asked_about(desk: Desk, code: str) -> None:
    assert in_loop(answered(desk, desk.approver(), ExecutionRequest(code, 1.0), "y\n")).allowed


def test_what_can_be_seen_stays_as_it_is() -> None:
    text = "def größe(x):\n    return 'ねこ 🐈 नमस्ते e\u0301' # ─"
    assert visible(text) == text
    assert visible("a" + "\u0301" * 6) == "a" + "\u0301" * 4 + "\\u0301" * 2, "nothing is taken out"
    assert visible("\ud800\x00\x7f\xa0\U000e0041") == "\\ud800\\x00\\x7f\\xa0\\U000e0041"


def test_variables_are_shown_above_the_code(desk: Desk) -> None:
    request = ExecutionRequest("run(x)", 1.0, {"x": ["rm -rf", "\x1b[2J"]})
    in_loop(answered(desk, desk.approver(), request, "n\n"))
    lines = [line.strip("│ ") for line in desk.screen.getvalue().splitlines()]
    shown = [line for line in lines if "x" in line and "code" not in line]
    assert shown[:2] == ["x = ['rm -rf', '\\x1b[2J']", "run(x)"]
