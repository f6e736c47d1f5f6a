"""A hostile executor as a process of its own: ``python -m tests.hostile.attacker FOLDER TOKEN UID LOG BOMB``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.hostile.bombs import BOMBS
from tests.hostile.peer import Heard, Place
from tests.hostile.stage import server


class _Written(list[str]):
    """Goes into a file as it grows, as this process is killed in the end."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def append(self, kind: str) -> None:
        super().append(kind)
        with self._path.open("a") as file:
            file.write(f"{kind}\n")


async def _main(folder: str, token: str, uid: str, log: str, bomb: str) -> None:
    place = Place(Path(folder), bytes.fromhex(token), int(uid), int(uid) + 1)
    await server(place, BOMBS[bomb].script, Heard(_Written(Path(log)))).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
