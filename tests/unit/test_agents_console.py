"""The printer of a run, and the demonstration that uses it."""

from __future__ import annotations

import io

from rich.console import Console

from orchestrator.agents import CodeAgent
from orchestrator.agents.printer import MAX_SHOWN, RunPrinter
from orchestrator.config import Config
from orchestrator.demo import SCRIPT, choose_model
from orchestrator.events import Execution, ExecutionError, Finished, Logs, Output, State, Status, ToolCall, ToolOutcome
from orchestrator.models import ModelReply, OpenAIServerModel, ScriptedModel, TokenUsage
from tests.unit.fake_sandbox import FakeSandbox, answered, failed, ran


def shown(*replies: str | ModelReply, script: list[object], max_steps: int = 20) -> str:
    text = io.StringIO()
    printer = RunPrinter(Console(file=text, width=100, force_terminal=False))
    agent = CodeAgent([], ScriptedModel(replies), sandbox=FakeSandbox(script), max_steps=max_steps)  # type: ignore[arg-type]
    for event in agent.run("Plan it.", stream=True):
        printer.show(event)
    return text.getvalue()


def test_everything_is_shown() -> None:
    calls = [
        Output("stdout", "no line end"),
        ToolCall(1, "weather", ("Oslo",), {"days": 2}),
        ToolOutcome(1, "weather", None, 0.2),
        ToolCall(2, "weather", (), {}),
        ToolOutcome(2, "weather", "TypeError: missing", 0.001),
        Finished(Execution(Status.OK, State.KEPT, 1, text="42")),
    ]
    text = shown(
        ModelReply("Thought: look.\n<code>\nweather('Oslo')\n</code>", TokenUsage(11, 22)),
        "<code>\n1/0\n</code>",
        "I forgot the code.",
        "<code>\nfinal_answer('done')\n</code>",
        script=[calls, failed(), answered("done")],
    )
    for part in (
        "Plan it.",
        "Step 1 of at most 20",
        "Thought: look.",
        "weather('Oslo')",
        "no line end\n→ weather('Oslo', days=2)",
        "← weather after 0.20 s",
        "← weather after 1.0 ms: TypeError: missing",
        "Value: 42",
        "tokens: 11 read, 22 written",
        "ZeroDivisionError: division by zero",
        "I forgot the code.",
        "has no code block",
        "Final answer",
        "done",
    ):
        assert part in text, part


def test_nothing_shown_can_drive_the_terminal() -> None:
    nasty = "\x1b[2J\x1b]0;pwn\x07\u202e[bold]x[/bold]"
    text = shown(
        f"{nasty}\n<code>\nprint('{nasty}')\n</code>",
        f"<code>\n'{nasty}'\n</code>",
        script=[[Output("stdout", nasty), Finished(failed(nasty, nasty))], answered(nasty)],
    )
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "[bold]x[/bold]" in text


def test_a_flood_is_cut_and_a_lost_state_is_told() -> None:
    flood = [Output("stdout", "x" * MAX_SHOWN), *[Output("stdout", "yz")] * 3]
    end = Finished(Execution(Status.TIMEOUT, State.LOST, 1, logs=Logs()))
    text = shown("<code>\nf()\n</code>", "No more.", script=[[*flood, end]], max_steps=1)
    assert "yz" not in text
    assert text.count("more output is not shown") == 1
    assert "timeout; variables: lost" in text
    assert "Answer when the steps were used up" in text


def test_the_demonstration_says_which_model_it_uses() -> None:
    model, line = choose_model(Config(), {})
    assert isinstance(model, ScriptedModel)
    assert "script" in line
    model, line = choose_model(
        Config(model="m"), {"OPENAI_API_KEY": "sk-secret-key", "OPENAI_BASE_URL": "http://a.test"}
    )
    assert isinstance(model, OpenAIServerModel)
    assert line == "Model: m at http://a.test"


def test_the_script_of_the_demonstration_gives_no_results_itself() -> None:
    agent = CodeAgent([], ScriptedModel(SCRIPT), sandbox=FakeSandbox([ran(), ran(), answered("later")]))
    assert agent.run("party") == "later"
    assert "180" not in "".join(SCRIPT)


def test_an_answer_and_an_error_of_millions_of_lines_are_cut() -> None:
    """Each line would cost a kilobyte and some ten microseconds."""
    lines = "a\n" * 1_000_000
    error = ExecutionError("ValueError", lines, lines)
    failed_so = Finished(Execution(Status.ERROR, State.KEPT, 1, error=error))
    text = shown("<code>\n1\n</code>", "<code>\n2\n</code>", script=[[failed_so], answered(lines)])
    assert text.count("characters left out") >= 2
    assert len(text) < 40 * MAX_SHOWN * 4
