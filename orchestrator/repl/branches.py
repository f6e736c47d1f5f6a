"""The branches of a session: the sandbox itself, which is ``main``, and what was forked from it by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.events import Execution, State
from orchestrator.sandbox import AsyncSandbox
from orchestrator.sandbox.state import Rollback

MAIN = "main"
_NAME = re.compile(r"\w[\w.-]{0,39}")  # it stands in the prompt


class Refused(Exception):
    """What a command asked for is not done; the message says why, in one line."""


@dataclass(eq=False, slots=True)
class Branch:
    """One line of work.

    Attributes:
        parent: the branch that it was forked from, which may have been closed since; None for main.
        count: executions so far. The next one has the number after it.
        at: the execution whose state it is in.
    """

    name: str
    sandbox: AsyncSandbox
    parent: Branch | None = None
    count: int = 0
    at: int = 0

    def ran(self, execution: Execution) -> None:
        """Notes what an execution came to."""
        if execution.execution_count:  # 0: it was too long to be sent
            self.count = execution.execution_count
            self.at = self.count if execution.state is State.KEPT else execution.restored_to or 0
        if not self.sandbox.is_running:  # its container has ended with it; the next one counts from the beginning
            self.restarted()

    def went_back(self, rollback: Rollback) -> None:
        """Notes a rollback."""
        self.at = rollback.checkpoint.execution_count

    def restarted(self) -> None:
        """Notes a fresh container."""
        self.count = self.at = 0

    @property
    def prompt(self) -> str:
        """What the line to type into begins with."""
        return ("" if self.parent is None else f"({self.name}) ") + f"In [{self.count + 1}]: "


class Branches:
    """All branches of a session by name, and the current one. Main is always there; whoever made it closes it."""

    def __init__(self, sandbox: AsyncSandbox) -> None:
        self.main = Branch(MAIN, sandbox)
        self.current = self.main
        self._named = {MAIN: self.main}

    def __iter__(self) -> Iterator[Branch]:
        return iter(self._named.values())

    def find(self, name: str) -> Branch:
        """The branch of that name; of no name, the current one.

        Raises:
            Refused: there is none.
        """
        if name and name not in self._named:
            raise Refused(f"there is no branch {name!r}. Branches are: {', '.join(self._named)}")
        return self._named[name] if name else self.current

    async def fork(self, name: str) -> Branch:
        """A branch of the present state, which code goes to from now on.

        Raises:
            Refused: the name cannot be used.
            CheckpointError, SandboxDied: as of ``AsyncSandbox.fork``.
        """
        name = name or self._free_name()
        if not _NAME.fullmatch(name):
            raise Refused(f"{name!r} is no name of a branch: letters, digits, '_', '.' and '-', at most 40")
        if name in self._named:
            raise Refused(f"there is a branch {name!r} already; %switch {name} goes there")
        parent = self.current
        self.current = Branch(name, await parent.sandbox.fork(), parent, parent.at, parent.at)
        self._named[name] = self.current
        return self.current

    def _free_name(self) -> str:
        number = 1
        while f"branch-{number}" in self._named:
            number += 1
        return f"branch-{number}"

    async def close(self, branch: Branch) -> None:
        """Closes a branch; those that were forked from it stay.

        Raises:
            Refused: it is main.
        """
        if branch.parent is None:
            raise Refused("main is the session itself; %quit leaves it")
        await branch.sandbox.close()
        self.forget_ended()

    def forget_ended(self) -> list[str]:
        """Lets go of branches that have ended, on purpose or not; gives their names."""
        ended = [branch for branch in self if branch.parent and not branch.sandbox.is_running]
        for branch in ended:
            del self._named[branch.name]
        while self.current.parent and self._named.get(self.current.name) is not self.current:
            self.current = self.current.parent
        return [branch.name for branch in ended]
