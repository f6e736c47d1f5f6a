"""The host's memory stays bounded, whatever an executor sends: by the kernel's count, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.bombs import BOMBS

DEADLINE = 100.0  # seconds; some of these send a hundred thousand messages
SLACK = 8 << 20  # bytes that a process grows by anyhow


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_neither_fills_the_host_nor_leaves_anything_in_it(name: str, tmp_path: Path) -> None:
    told = attacked(name, tmp_path)
    bomb = BOMBS[name]
    assert told["error"] in (bomb.errors or ("",))
    assert told["grown"] < bomb.grows + SLACK, f"{told['grown'] / (1 << 20):.0f} MiB"
    assert told["text"].isprintable() or not told["text"]
    assert told["executions"] <= 1
    assert not told["leaks"]


def attacked(name: str, folder: Path) -> dict[str, Any]:
    """What a victim tells; it says nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.victim", str(folder), name],
        capture_output=True,
        timeout=DEADLINE,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    assert done.stderr == b""
    told: dict[str, Any] = json.loads(done.stdout)
    return told
