"""``final_answer`` and ``user_input``, at a real terminal; the base tools by name; what importing costs."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

import pytest
from rich.console import Console

from orchestrator.agents import CodeAgent, MultiStepAgent, ToolCallingAgent
from orchestrator.asking import TerminalApprover
from orchestrator.errors import ConfigError, ToolError
from orchestrator.models import ScriptedModel
from orchestrator.policy import ToolCallRequest
from orchestrator.tools import FinalAnswerTool, Tool, UserInputTool, base_tool, base_tools


def run(test: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(60):
            return await test

    return asyncio.run(bounded())


def test_final_answer_gives_back_what_it_gets() -> None:
    tool = FinalAnswerTool()
    assert tool({"x": 1}) == {"x": 1}
    assert tool(answer=3) == 3
    assert tool.parameters["properties"] == {"answer": {"description": "the answer"}}


def test_no_other_tool_has_its_name() -> None:
    with pytest.raises(ToolError, match="the sandbox has a function of that name"):
        type("Mine", (FinalAnswerTool,), {"_ends_a_run": False})()


class Screen(StringIO):
    """Tells when it has been asked for an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


class Terminal:
    """A terminal whose keys the test presses."""

    def __init__(self) -> None:
        self.keys, self._theirs = pty.openpty()
        self.keyboard: TextIO = os.fdopen(self._theirs, "r")
        self.screen = Screen()

    async def asked(self, count: int = 1) -> None:
        while self.screen.getvalue().count("answer: ") < count:
            await self.screen.written.wait()
            self.screen.written.clear()

    async def asked_anything(self, count: int) -> None:
        """Also an approver's questions."""
        while sum(self.screen.getvalue().count(prompt) for prompt in ("answer: ", "a reason: ")) < count:
            await self.screen.written.wait()
            self.screen.written.clear()

    async def type(self, text: str) -> None:
        os.write(self.keys, text.encode())


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.keyboard.close()
    os.close(made.keys)


def test_a_person_is_asked(terminal: Terminal) -> None:
    async def test() -> None:
        ask = UserInputTool(terminal.keyboard, terminal.screen)
        task = asyncio.ensure_future(ask("Which\ncolour?\x1b[2J"))
        await terminal.asked()
        await terminal.type(" red \n")
        assert await task == "red"
        assert terminal.screen.getvalue() == "│ Which\n│ colour?\\x1b[2J\nanswer: "

    run(test())


def test_questions_come_one_after_the_other_and_a_given_up_one_takes_no_answer(terminal: Terminal) -> None:
    async def test() -> None:
        ask = UserInputTool(terminal.keyboard, terminal.screen)
        first = asyncio.ensure_future(ask("First?"))
        await terminal.asked()
        second = asyncio.ensure_future(ask("Second?"))
        first.cancel()
        await terminal.asked(2)
        await terminal.type("two\n")
        assert await second == "two"
        assert first.cancelled()

    run(test())


def test_at_the_terminal_of_the_process_there_is_one_question_at_a_time_whoever_asks(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer to a tool's question must not be one to an approver's."""
    monkeypatch.setattr("sys.stdin", terminal.keyboard)

    async def test() -> None:
        approver = TerminalApprover(console=Console(file=terminal.screen, force_terminal=True))
        request = ToolCallRequest("send", {}, 1)
        asks = [UserInputTool(screen=terminal.screen), UserInputTool(screen=terminal.screen)]
        first = asyncio.ensure_future(asks[0]("First?"))
        await terminal.asked()
        second, third = asyncio.ensure_future(asks[1]("Second?")), asyncio.ensure_future(approver(request))
        for _ in range(5):  # both have begun
            await asyncio.sleep(0)
        await terminal.type("y\n")
        assert await first == "y"
        open_ = {second, third}
        while open_:
            await terminal.asked_anything(4 - len(open_))
            await terminal.type("no\n")
            _, open_ = await asyncio.wait(open_, return_when=asyncio.FIRST_COMPLETED)
        assert second.result() == "no"
        assert not third.result().allowed

    run(test())


def test_without_a_terminal_it_says_so() -> None:
    with open(os.devnull) as nowhere, pytest.raises(EOFError, match="standard input is no terminal"):
        run(UserInputTool(nowhere)("Anybody?"))


def test_a_closed_terminal_is_no_answer(terminal: Terminal) -> None:
    async def test() -> None:
        task = asyncio.ensure_future(UserInputTool(terminal.keyboard, terminal.screen)("Anybody?"))
        await terminal.asked()
        await terminal.type("\x04")  # Ctrl-D
        with pytest.raises(EOFError, match="nobody answered"):
            await task

    run(test())


def test_base_tools_are_made_when_they_are_asked_for() -> None:
    makers = base_tools()
    assert list(makers) == ["web_search", "visit_webpage", "user_input"]
    for name, make in makers.items():
        tool = make()
        assert isinstance(tool, Tool)
        assert tool.name == name
        assert type(base_tool(name)) is type(tool)
    with pytest.raises(ConfigError, match="there is no tool 'rm'; there are web_search, visit_webpage, user_input"):
        base_tool("rm")


@pytest.mark.parametrize("kind", [CodeAgent, ToolCallingAgent])
def test_an_agent_has_the_base_tools_that_the_documentation_names(kind: type[MultiStepAgent]) -> None:
    def visit_webpage(url: str) -> str:
        """Mine.

        Args:
            url: where
        """
        return url

    text = (Path(__file__).parents[2] / "docs" / "tools.md").read_text("utf-8")
    (named,) = re.findall(r"`add_base_tools=True` adds `(\w+)\(\)` and `(\w+)\(\)`\.", text)
    added = kind([], ScriptedModel([]), add_base_tools=True)
    assert [type(tool).__name__ for tool in added.tools.values()] == list(named)
    assert list(added.tools) == ["web_search", "visit_webpage"]
    without = kind([], ScriptedModel([]))
    assert list(without.tools) == []
    for name in added.tools:
        assert name in added.system_prompt
        assert name not in without.system_prompt
    mine = kind([visit_webpage], ScriptedModel([]), add_base_tools=True)
    assert mine.tools["visit_webpage"]("here") == "here"
    assert list(mine.tools) == ["visit_webpage", "web_search"]


def without(module: str, code: str) -> str:
    """What ``code`` raises in an interpreter that has no such module."""
    program = f"import sys\nsys.modules[{module!r}] = None\ntry:\n    {code}\nexcept Exception as error:\n"
    program += "    print(type(error).__name__, error)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_a_missing_extra_is_named() -> None:
    told = without("ddgs.engines", "from orchestrator.tools import WebSearchTool; WebSearchTool()")
    assert told == "ConfigError web search needs ddgs; install it with: pip install 'cellblock[search]'"
    told = without("html_to_markdown", "from orchestrator.tools import VisitWebpageTool; VisitWebpageTool()")
    assert told == "ConfigError visit_webpage needs html-to-markdown; install it with: pip install 'cellblock[search]'"


def test_tools_are_imported_without_what_only_some_of_them_need() -> None:
    program = "import orchestrator.tools, sys; print(sorted({'httpx2', 'ddgs', 'PIL', 'lxml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
