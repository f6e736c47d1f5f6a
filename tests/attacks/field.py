"""Where the attacks take place: one column's sandbox at a time."""

from __future__ import annotations

from pathlib import Path

from orchestrator import Config
from tests.attacks.case import Cell
from tests.attacks.target import Canaries, Listeners, Neighbour, Target


class Field:
    """Starts the sandbox of a column when it is first asked for, and ends that of the column before."""

    def __init__(
        self,
        config: Config,
        images: dict[bool, str],
        neighbour: Neighbour,
        listeners: Listeners,
        canaries: Canaries,
        host_file: Path,
        log: Path,
    ) -> None:
        self._config = config
        self._images = images
        self._others = {"neighbour": neighbour, "listeners": listeners, "canaries": canaries}
        self._others |= {"host_file": host_file, "log": log}
        self._column: tuple[Cell, bool] | None = None
        self._target: Target | None = None

    def target(self, cell: Cell, native: bool) -> Target:
        """The sandbox of that column; ``native``: in the image with ctypes."""
        if self._target is None or self._column != (cell, native):
            self.close()
            self._target = Target.start(cell, self._images[native], self._config, **self._others)
            self._column = (cell, native)
        return self._target

    def close(self) -> None:
        """Ends what runs."""
        if self._target is not None:
            self._target.sandbox.close()
            self._target = None
