"""A session: runs what was typed in the current branch's sandbox and shows what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

from orchestrator.errors import CellblockError, CheckpointError
from orchestrator.events import Execution
from orchestrator.repl.branches import Branches, Refused
from orchestrator.repl.commands import run_command
from orchestrator.repl.screen import Screen
from orchestrator.repl.statements import is_command, statements
from orchestrator.repl.words import ending
from orchestrator.sandbox import AsyncSandbox
from orchestrator.sanitise import sanitise

T = TypeVar("T")


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Does it to its end. Who wants to leave while a container starts waits: it must be there to be removed."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    finally:
        await asyncio.gather(task, return_exceptions=True)


class Session:
    """One person's session. The sandbox has been started and is closed by whoever made it."""

    def __init__(self, sandbox: AsyncSandbox, screen: Screen) -> None:
        self._branches = Branches(sandbox)
        self._screen = screen
        self._executing: AsyncSandbox | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def prompt(self) -> str:
        """What the line to type into begins with: the branch, unless it is main, and the execution's number."""
        return self._branches.current.prompt

    def interrupt(self) -> None:
        """Stops the execution under way, which then ends by itself; else does nothing."""
        if self._executing:
            task = asyncio.ensure_future(self._executing.interrupt())
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)

    async def run(self, text: str) -> bool:
        """Runs what was typed, as one execution; where commands are among it, piece by piece. True if all went well.

        Raises:
            Leave: the session is to end.
        """
        pieces = statements(text)
        if pieces and not any(map(is_command, pieces)):
            return await self.run_piece(text)
        return all([await self.run_piece(piece) for piece in pieces])

    async def run_piece(self, text: str) -> bool:
        """Runs one statement or command; what goes wrong is told in a line. True if it went well.

        Raises:
            Leave: the session is to end.
        """
        try:
            if is_command(text):
                await undisturbed(run_command(text, self._branches, self._screen))
                return True
            return await self._execute(text)
        except (Refused, CheckpointError) as error:
            self._note(str(error))
        except CellblockError as error:
            self._note(f"{type(error).__name__}: {error}")
            if not self._branches.main.sandbox.is_running:
                self._note("%reset gives a fresh sandbox")
        finally:
            if ended := self._branches.forget_ended():
                self._note(f"gone with it: {', '.join(ended)}; in {self._branches.current.name}")
            self._screen.finish_line()
        return False

    async def _execute(self, code: str) -> bool:
        branch = self._branches.current
        await undisturbed(branch.sandbox.start())
        self._executing = branch.sandbox
        try:
            execution = await branch.sandbox.run_code(
                code,
                on_stdout=partial(self._screen.output, "stdout"),
                on_stderr=partial(self._screen.output, "stderr"),
            )
        finally:
            self._executing = None
        branch.ran(execution)
        self._show(execution)
        if not branch.sandbox.is_running and branch is self._branches.main:
            self._note("the container has ended with it; what is run next begins in a fresh one")
        return execution.ok

    def _show(self, execution: Execution) -> None:
        if execution.text is not None:
            self._screen.value(execution.text)
        words = ending(execution)
        if execution.error and (execution.error.traceback or not words):
            self._screen.failure(str(execution.error))
        if words:
            self._note(words)

    def _note(self, text: str) -> None:
        self._screen.note(" ".join(sanitise(text).split()))
