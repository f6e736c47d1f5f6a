"""The life of a session: from a terminal, or from what is piped into it. However it ends, the sandbox is closed.

Exit codes: 0 left by its user, or everything that was piped in went well; 1 some of that failed; 128 and the signal's
number if SIGTERM or SIGHUP ended it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from orchestrator.errors import missing_extra
from orchestrator.repl.commands import Leave
from orchestrator.repl.history import history_file
from orchestrator.repl.screen import Screen
from orchestrator.repl.session import Session, undisturbed
from orchestrator.repl.statements import statements
from orchestrator.sandbox import AsyncSandbox

_ENDING = (signal.SIGTERM, signal.SIGHUP)

Converse = Callable[[Session], Awaitable[int]]


def repl(sandbox: AsyncSandbox) -> int:
    """Holds a session in ``sandbox``, which has not been started, and closes it; gives the exit code.

    Raises:
        CellblockError: the sandbox cannot be started, or prompt_toolkit is not installed.
    """
    converse = _from_terminal(sandbox) if sys.stdin and sys.stdin.isatty() else _from_pipe()
    ending = _Ending()
    try:
        return asyncio.run(_hold(sandbox, converse, ending))
    except asyncio.CancelledError:
        return 128 + ending.signal
    except BrokenPipeError:  # nobody reads any more; nor is anybody to be told so when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


async def _hold(sandbox: AsyncSandbox, converse: Converse, ending: _Ending) -> int:
    ending.arm()
    async with _started(sandbox):
        return await converse(Session(sandbox, Screen(sys.stdout, sys.stderr)))


class _Ending:
    """Turns the first of the signals that end a process into the end of the session; the others change nothing."""

    def __init__(self) -> None:
        self.signal = 0
        self._task: asyncio.Task[object] | None = None

    def arm(self) -> None:
        """From now on; for the task that runs."""
        self._task = asyncio.current_task()
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                asyncio.get_running_loop().add_signal_handler(number, self._end, number)

    def _end(self, number: int) -> None:
        if self._task and not self.signal:
            self.signal = number
            self._task.cancel()


@asynccontextmanager
async def _started(sandbox: AsyncSandbox) -> AsyncIterator[None]:
    """The sandbox, running."""
    try:
        await undisturbed(sandbox.start())
        yield
    finally:
        await sandbox.close()


def _from_terminal(sandbox: AsyncSandbox) -> Converse:
    try:
        from orchestrator.repl.editor import Editor  # an extra, and only needed here
    except ImportError:
        raise missing_extra("the line editor", "prompt_toolkit", "repl") from None
    editor = Editor(history_file())

    async def converse(session: Session) -> int:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, session.interrupt)
        python = (await sandbox.isolation()).python_version
        print(f"Python {python} in a locked-down container. %help lists the commands, Ctrl-D leaves.")
        while True:
            try:
                await session.run(await editor.read(session.prompt))
            except KeyboardInterrupt:
                continue
            except (EOFError, Leave):
                return 0

    return converse


def _from_pipe() -> Converse:
    """Goes on after a failure, as a person would, and does not hide it."""
    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if sys.stdin else ""

    async def converse(session: Session) -> int:
        failed = 0
        with suppress(Leave):
            for piece in statements(text.replace("\r\n", "\n")):
                failed += not await session.run_piece(piece)
        return 1 if failed else 0

    return converse
