"""What the command line says of runs: who has to decide sees all that would be done."""

from __future__ import annotations

from orchestrator.client.runs import Question, Run
from orchestrator.events import RunState
from orchestrator.service.commands import _lines


def shown(question: Question) -> list[str]:
    run = Run(
        *("r", "default", "task", RunState.WAITING, "local", 1.0, 1.0, 0.0, 1, 1, 0, 0, "", None, False),
        questions=(question,),
    )
    lines = list(_lines(run))
    return lines[lines.index("question q: may it do this?") + 1 :]


def test_code_is_shown_with_its_variables_and_with_what_cannot_be_seen() -> None:
    code = "a = 1  # \x1b[2K\x1b[1A harmless\rb = 2\nc = '\u202e'"
    assert shown(Question("q", 1.0, 2.0, code=code, arguments={"n": [1]})) == [
        r"  | a = 1  # \x1b[2K\x1b[1A harmless\x0d",
        "  | b = 2",
        r"  | c = '\u202e'",
        "with the variables",
        "  | {'n': [1]}",
    ]
    assert shown(Question("q", 1.0, 2.0, code="1", arguments={})) == ["  | 1"]


def test_a_call_is_shown_with_its_arguments() -> None:
    assert shown(Question("q", 1.0, 2.0, tool="pay", arguments={"amount": 3})) == ["  | pay({'amount': 3})"]
    assert shown(Question("q", 1.0, 2.0, tool="stop")) == ["  | stop()"]
