"""What must be true after any attack by an executor, whatever it was."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.errors import ProtocolViolation, SandboxDied, SandboxError
from orchestrator.sandbox import AsyncSandbox
from tests.hostile.peer import honest
from tests.hostile.stage import AnyScript, Played, Stage, stage

DEADLINE = 20.0  # seconds within which every caller has an answer
TURNS = 10.0  # seconds for tasks that have been cancelled to end
_OURS = str(Path(orchestrator.__file__).parent)
MAX_MESSAGE = 1500  # characters of an error: a page, not a flood
Act = Callable[[AsyncSandbox], Awaitable[object]]
Failed = type[BaseException] | tuple[type[BaseException], ...]
BROKEN = (SandboxDied, ProtocolViolation)


async def run_code(sandbox: AsyncSandbox) -> object:
    """What a caller does most."""
    return await sandbox.run_code("SENT = 'once'")


def refused(
    script: AnyScript,
    act: Act = run_code,
    error: Failed = BROKEN,
    executions: int = 1,
    *,
    streams: int = 1,
    said: list[str] | None = None,
    tools: Sequence[Callable[..., Any]] = (),
    **config: Any,
) -> str:
    """The text of the error that an executor of this script comes to, once all that must be true of it has been seen.

    A neighbour lives through it. Code is sent as often as ``executions`` says, ``streams`` are opened, and no more is
    said to it than ``said``, if that is given. The sandbox is gone, says so, and nothing is sent again; a reset gives
    another.
    """

    async def play(scene: Stage) -> str:
        async with scene.sandbox(honest) as neighbour:
            await _is_well(neighbour)
            sandbox = scene.sandbox(script, honest, tools=tools)
            with pytest.raises(error) as caught:
                await act(sandbox)
            await _is_gone(sandbox, scene.played[1])
            await _is_well(neighbour)
            await _is_another_after_a_reset(sandbox)
            heard = scene.played[1].heard
            assert (heard.executions, heard.streams) == (executions, streams), heard
            assert said is None or heard.kinds == said
            await sandbox.close()
        await _no_task_left()
        return _plain(caught.value)

    return in_stage(play, **config)


async def _is_gone(sandbox: AsyncSandbox, attacker: Played) -> None:
    assert attacker.removed == 1
    assert not attacker.folder.sockets.exists()
    assert not sandbox.is_running


async def _is_well(sandbox: AsyncSandbox) -> None:
    assert (await sandbox.run_code("6 * 7", timeout=DEADLINE)).value == "6 * 7"


async def _is_another_after_a_reset(sandbox: AsyncSandbox) -> None:
    if sandbox._lost:  # else it has never come up, and the next use starts another by itself
        with pytest.raises(SandboxDied, match="reset"):
            await sandbox.run_code("again")
    await sandbox.reset()
    await _is_well(sandbox)


def _plain(error: BaseException) -> str:
    text = str(error)
    assert text
    assert text.isprintable(), ascii(text)
    assert len(text) <= MAX_MESSAGE
    return text


async def _no_task_left() -> None:
    ours = [task for task in asyncio.all_tasks() if _source(task).startswith(_OURS)]
    if ours:  # those that have been cancelled end with the next turns of the loop
        _, ours = await asyncio.wait(ours, timeout=TURNS)
    assert not ours, ours


def _source(task: asyncio.Task[Any]) -> str:
    """The file whose code the task runs."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code.co_filename if code else ""


def in_stage(play: Callable[[Stage], Awaitable[Any]], **settings: Any) -> Any:
    """Runs a scene in a loop of its own, within the deadline."""

    async def main(folder: Path) -> Any:
        async with asyncio.timeout(DEADLINE):
            with stage(folder, **settings) as scene:
                try:
                    return await play(scene)
                finally:
                    for played in scene.played:
                        with suppress(SandboxError):
                            await played.remove()

    with tempfile.TemporaryDirectory(prefix="cellblock-hostile-") as folder:
        return asyncio.run(main(Path(folder)))
