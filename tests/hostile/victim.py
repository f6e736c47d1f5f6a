"""The host's side under a bomb, measured; prints what it came to: ``python -m tests.hostile.victim FOLDER BOMB``."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.errors import CellblockError
from orchestrator.sandbox import AsyncSandbox
from tests.hostile.bombs import BOMBS
from tests.hostile.stage import GRACE, SHORT_MARGIN, AnyScript, Played, stage

CALM = "nothing at all"
AMPLE = 20.0  # seconds for who behaves


class PlayedApart(Played):
    """Played by another process, so that what grows here is the host's own."""

    def __init__(self, folder: Path, config: Any, script: AnyScript) -> None:
        super().__init__(folder, config, script)
        self._log = folder.with_suffix(".log")
        self._bomb = next(name for name, bomb in BOMBS.items() if bomb.script is script)
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Starts the process."""
        place = self.place
        told = [str(place.folder), place.token.hex(), str(place.supervisor_uid), str(self._log), self._bomb]
        self._process = _started("-m", "tests.hostile.attacker", *told)

    async def wait_for_socket(self, directory: int) -> None:
        """Until it listens."""
        while "executor.sock" not in os.listdir(directory):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def remove(self) -> None:
        """Kills the process."""
        if self._process:
            self._process.kill()
            self._process.wait()
        if self._log.exists():
            self.heard.kinds = self._log.read_text().split()
        await super().remove()

    abandon = remove


def _started(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *arguments])


def _forget_the_highest() -> None:
    """From now on the highest is what follows; see proc(5)."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory(what: str) -> int:
    """Bytes, by the kernel's count."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def _held() -> tuple[int, int]:
    """Descriptors and threads of this process, but those of the pool that calls to the engine have."""
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("cellblock-engine")]
    return len(os.listdir("/proc/self/fd")), len(threads)


async def _attacked(scene: Any, name: str) -> tuple[str, str, int]:
    """The error that it came to, its text, and how often code was sent."""
    bomb = BOMBS[name]
    sandbox: AsyncSandbox = scene.sandbox(bomb.script, tools=bomb.tools, timeout=bomb.timeout, **bomb.settings)
    try:
        await bomb.act(sandbox)
        error = text = ""
    except CellblockError as raised:
        error = type(raised).__name__
        text = str(raised)
    finally:
        await sandbox.close()
    return error, text, scene.played[-1].heard.executions


async def _let_go(held: tuple[int, int]) -> bool:
    """Whether no more is held than before; gRPC closes its descriptors when it comes to it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while _is_more(_held(), held):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    return not _is_more(_held(), held)


def _is_more(now: tuple[int, int], before: tuple[int, int]) -> bool:
    """More of either: fewer of the one do not make up for more of the other."""
    return any(a > b for a, b in zip(now, before, strict=True))


async def _main(folder: Path, name: str) -> dict[str, Any]:
    with stage(folder, SHORT_MARGIN, PlayedApart, start_timeout=20.0, grace=GRACE) as scene:
        async with scene.sandbox(BOMBS[CALM].script, timeout=AMPLE) as neighbour:
            await neighbour.run_code("1")
            await _attacked(scene, CALM)  # what is loaded and opened once has been
            held = _held()
            _forget_the_highest()
            before = _memory("VmHWM")
            error, text, executions = await _attacked(scene, name)
            grown = _memory("VmHWM") - before
            assert (await neighbour.run_code("2")).value == "2"
            told = {"error": error, "text": text, "executions": executions}
            return told | {"grown": grown, "leaks": not await _let_go(held)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(Path(sys.argv[1]), sys.argv[2]))))
