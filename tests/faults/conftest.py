"""What the fault-injection tests share: a runtime folder of each test's own, and short times."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Config
from orchestrator.config import Limits
from orchestrator.sandbox import folders, lockdown
from orchestrator.stack.places import runtime_dir
from tests.faults.traces import Made
from tests.waiting import eventually

LEASE = 5.0  # seconds; the shortest there is


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for sockets, beside the usual one: what is left in it is this test's."""
    base = runtime_dir().parent
    base.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="cellblock-faults-", dir=base))
    yield folder
    left = os.listdir(folder)
    shutil.rmtree(folder)
    assert left == [], "left in the runtime folder"


@pytest.fixture
def quick(config: Config, place: Path) -> Config:
    """Short times, and a runtime folder of its own."""
    return replace(config, runtime_dir=str(place), lease=LEASE, grace=0.2, limits=Limits(memory="256m"))


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Made]]:
    """Every session that this process begins."""
    made: list[Made] = []
    original = lockdown.Session.__init__

    def noted(session: lockdown.Session, *args: Any, **kwargs: Any) -> None:
        original(session, *args, **kwargs)
        made.append(Made.of(session))

    monkeypatch.setattr(lockdown.Session, "__init__", noted)
    yield made
    try:
        # One is counted a moment longer than its folder is there.
        eventually(lambda: not folders._sessions, lambda: f"still counted: {', '.join(folders._sessions)}")
    finally:
        folders._sessions.clear()  # or every test after this one would fail, too
