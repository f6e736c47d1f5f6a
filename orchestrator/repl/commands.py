"""What begins with ``%``: commands to the session, as a table of functions."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from orchestrator.errors import CheckpointError
from orchestrator.events import Execution
from orchestrator.repl.branches import Branches, Refused
from orchestrator.repl.screen import Screen
from orchestrator.repl.words import row, went_back
from orchestrator.sandbox.state import Which

# The user's own names and their types. No name is looked up and no method of a variable is called: user code may have
# put anything behind either. The lambda's globals are the user's namespace; a type's name comes from type itself.
_WHO = """[
    (name, ().__class__.__class__.__dict__["__name__"].__get__(().__class__.__class__(value)))
    for name, value in (lambda: 0).__globals__.copy().items()
    if ().__class__.__class__(name) is "".__class__ and not (name[:2] == name[-2:] == "__")
]"""
_KEYS = (
    ("Enter", "runs what is complete; an empty line ends a block"),
    ("Alt-Enter", "runs it as it is"),
    ("Ctrl-C", "stops the code that runs, or clears what was typed"),
    ("Ctrl-D", "leaves, and removes the sandbox"),
)


class Leave(Exception):
    """The user has had enough."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a command takes, what it does in words, and what does it."""

    argument: str  # as shown in the help; empty if it takes none
    about: str
    run: Callable[[Branches, Screen, str], Awaitable[None]]


async def run_command(text: str, branches: Branches, screen: Screen) -> None:
    """Does what ``%name argument`` asks for.

    Raises:
        Refused: there is no such command, or it cannot be done as asked.
        Leave: the session is to end.
        CellblockError: it was not done.
    """
    name, _, argument = text.removeprefix("%").strip().partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise Refused(_unknown(name))
    if argument and not command.argument:
        raise Refused(f"%{name} takes no argument")
    if not argument and command.argument and not command.argument.startswith("["):
        raise Refused(f"%{name} needs a {command.argument}")
    await command.run(branches, screen, argument.strip())


def _unknown(name: str) -> str:
    nearest = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
    meant = f"; did you mean %{nearest[0]}?" if nearest else ""
    return f"there is no command %{name}{meant}{' ' if meant else '; '}%help lists them all"


# ------------------------------------------------------------------------------------------------------ checkpoints


async def _checkpoint(branches: Branches, screen: Screen, name: str) -> None:
    if name.isdecimal():
        raise Refused("a number means an execution; a name must have something else in it")
    made = await branches.current.sandbox.checkpoint(name)
    screen.say(f"{made} is kept until it is dropped")


async def _checkpoints(branches: Branches, screen: Screen, _: str) -> None:
    columns = ("name", "execution", "age", "memory held", "files", "current")
    screen.table(columns, map(row, await branches.current.sandbox.checkpoints()))


async def _rollback(branches: Branches, screen: Screen, which: str) -> None:
    rollback = await branches.current.sandbox.rollback(_which(which))
    branches.current.went_back(rollback)
    screen.say(went_back(rollback))


async def _undo(branches: Branches, screen: Screen, _: str) -> None:
    rollback = await branches.current.sandbox.undo()
    branches.current.went_back(rollback)
    screen.say(went_back(rollback))


async def _drop(branches: Branches, screen: Screen, which: str) -> None:
    await branches.current.sandbox.drop(_which(which))
    screen.say(f"checkpoint {which} is dropped")


def _which(text: str) -> Which:
    return int(text) if text.isdecimal() and len(text) < 20 else text


# --------------------------------------------------------------------------------------------------------- branches


async def _branch(branches: Branches, screen: Screen, name: str) -> None:
    parent = branches.current
    branch = await branches.fork(name)
    screen.say(f"in branch {branch.name}, which begins in the present state of {parent.name}")


async def _branches(branches: Branches, screen: Screen, _: str) -> None:
    rows = [
        (
            branch.name,
            branch.parent.name if branch.parent else "-",
            str(branch.at),
            _mark(branches.current is branch),
        )
        for branch in branches
    ]
    screen.table(("name", "forked from", "at execution", "current"), rows)


def _mark(marked: bool) -> str:
    return "*" if marked else ""


async def _switch(branches: Branches, screen: Screen, name: str) -> None:
    branches.current = branches.find(name)
    screen.say(f"in {name}, after execution {branches.current.at}")


async def _close(branches: Branches, screen: Screen, name: str) -> None:
    branch = branches.find(name)
    await branches.close(branch)
    screen.say(f"branch {branch.name} is closed; in {branches.current.name}")


# ---------------------------------------------------------------------------------------------------- everything else


async def _who(branches: Branches, screen: Screen, _: str) -> None:
    """Asked in a branch of its own, which leaves no trace; in place, where none can be made."""
    try:
        async with await branches.current.sandbox.fork() as aside:
            execution = await aside.run_code(_WHO)
    except CheckpointError as error:
        execution = await branches.current.sandbox.run_code(_WHO)
        branches.current.ran(execution)
        screen.note(f"asked in place, as execution {execution.execution_count}: {error}")
    found = _names_and_types(execution)
    if found:
        screen.table(("name", "type"), found)
    else:
        screen.say("no variables")


def _names_and_types(execution: Execution) -> list[tuple[str, str]]:
    """What the sandbox answered, checked: it is the user's code that was asked.

    Raises:
        Refused: it is not what was asked for.
    """
    match execution.value:
        case list(found) if all(isinstance(pair, tuple) and list(map(type, pair)) == [str, str] for pair in found):
            return sorted(found)
    raise Refused(f"the sandbox does not say: {execution.error or 'there are too many variables to be listed'}")


async def _reset(branches: Branches, screen: Screen, _: str) -> None:
    await branches.main.sandbox.reset()
    branches.forget_ended()
    branches.main.restarted()
    screen.say("a fresh sandbox: variables, files, checkpoints and branches are gone")


async def _help(branches: Branches, screen: Screen, _: str) -> None:
    rows = [(f"%{name} {command.argument}".rstrip(), command.about) for name, command in COMMANDS.items()]
    width = max(len(left) for left, _ in rows) + 2
    screen.say("\n".join(f"{left:{width}}{right}" for left, right in (*rows, *_KEYS)))


async def _quit(branches: Branches, screen: Screen, _: str) -> None:
    raise Leave


COMMANDS = {
    "checkpoint": Command("[name]", "keeps the present state until it is dropped", _checkpoint),
    "checkpoints": Command("", "lists what is kept; one is made after each execution", _checkpoints),
    "rollback": Command("name|n", "goes back to a checkpoint, or to the end of execution n", _rollback),
    "undo": Command("", "goes back by one execution", _undo),
    "drop": Command("name|n", "lets a checkpoint go, and its memory", _drop),
    "branch": Command("[name]", "forks the present state and goes on in the branch", _branch),
    "branches": Command("", "lists the branches", _branches),
    "switch": Command("name", "goes on in another branch; 'main' is the first", _switch),
    "close": Command("[name]", "closes a branch, and frees its memory", _close),
    "who": Command("", "lists your variables and their types", _who),
    "reset": Command("", "a fresh sandbox; everything in it is gone", _reset),
    "help": Command("", "this list", _help),
    "quit": Command("", "leaves, and removes the sandbox", _quit),
}
