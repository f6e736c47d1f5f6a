"""Commands that are refused before anything is asked of the sandbox, and what a branch notes."""

from __future__ import annotations

import asyncio
import io

import pytest

from orchestrator import AsyncSandbox
from orchestrator.events import Execution, Files, State, Status
from orchestrator.repl.branches import Branch, Branches, Refused
from orchestrator.repl.commands import COMMANDS, Leave, run_command
from orchestrator.repl.screen import Screen
from orchestrator.sandbox.state import Checkpoint, Rollback


def command(text: str) -> str:
    """What is said to a command; the sandbox has not been started."""
    out = io.StringIO()
    asyncio.run(run_command(text, Branches(AsyncSandbox()), Screen(out, out)))
    return out.getvalue()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("%chekpoint a", "there is no command %chekpoint; did you mean %checkpoint? %help lists them all"),
        ("%zzzzzz", "there is no command %zzzzzz; %help lists them all"),
        ("%", "there is no command %; %help lists them all"),
        ("%rollback", "%rollback needs a name|n"),
        ("%drop  ", "%drop needs a name|n"),
        ("%switch", "%switch needs a name"),
        ("%undo 3", "%undo takes no argument"),
        ("%checkpoint 12", "a number means an execution; a name must have something else in it"),
        ("%switch nowhere", "there is no branch 'nowhere'. Branches are: main"),
        ("%branch main", "there is a branch 'main' already; %switch main goes there"),
        ("%branch a b", "'a b' is no name of a branch: letters, digits, '_', '.' and '-', at most 40"),
        ("%close", "main is the session itself; %quit leaves it"),
        ("%close main", "main is the session itself; %quit leaves it"),
    ],
)
def test_refusals_are_one_line_that_says_why(text: str, words: str) -> None:
    with pytest.raises(Refused) as refused:
        command(text)
    assert str(refused.value) == words


def test_help_lists_every_command() -> None:
    shown = command("%help")
    assert all(f"%{name}" in shown for name in COMMANDS)
    assert max(map(len, shown.splitlines())) < 80
    assert "Ctrl-C" in shown


def test_quit_leaves() -> None:
    with pytest.raises(Leave):
        command("%quit")


def test_main_is_a_branch_like_the_others() -> None:
    assert command("%switch main") == "in main, after execution 0\n"
    assert command("%branches").splitlines()[1].split() == ["main", "-", "0", "*"]


def running() -> AsyncSandbox:
    """A sandbox that says that it runs."""
    sandbox = AsyncSandbox()
    sandbox._link = object()  # type: ignore[assignment]
    return sandbox


def test_a_branch_notes_executions_and_the_state_that_it_is_in() -> None:
    branch = Branch("main", running())
    assert branch.prompt == "In [1]: "
    branch.ran(Execution(Status.OK, State.KEPT, 4))
    assert (branch.prompt, branch.at) == ("In [5]: ", 4)
    branch.ran(Execution(Status.TIMEOUT, State.RESTORED, 5, restored_to=4))
    assert (branch.prompt, branch.at) == ("In [6]: ", 4)
    branch.ran(Execution(Status.ERROR, State.KEPT, 0))  # too long to be sent
    assert (branch.prompt, branch.at) == ("In [6]: ", 4)
    branch.went_back(Rollback(Checkpoint(1, "", 2), Files.RESTORED))
    assert (branch.prompt, branch.at) == ("In [6]: ", 2)
    assert Branch("idea", running(), branch, 2, 2).prompt == "(idea) In [3]: "


def test_a_container_that_ended_with_an_execution_is_counted_from_the_beginning() -> None:
    branch = Branch("main", AsyncSandbox())
    branch.ran(Execution(Status.DIED, State.LOST, 4, restored_to=0))
    assert branch.prompt == "In [1]: "
