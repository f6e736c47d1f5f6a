"""What was typed, kept for the next session in a file that only its user can read: one JSON string on a line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

MAX_ENTRIES = 5_000  # kept; the file is cut when it has twice as many
MAX_ENTRY = 64 << 10  # characters; a pasted file is nobody's history


def history_file(env: Mapping[str, str] = os.environ) -> Path:
    """``$XDG_STATE_HOME/cellblock/history``, else ``~/.local/state/cellblock/history``."""
    state = env.get("XDG_STATE_HOME", "")
    folder = Path(state) if state.startswith("/") else Path(os.path.expanduser("~/.local/state"))
    return folder / "cellblock" / "history"


def load(path: Path) -> list[str]:
    """The newest entries, oldest first; none if the file cannot be read."""
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except OSError:
        return []
    entries = [entry for line in lines[-MAX_ENTRIES:] if (entry := _decoded(line)) is not None]
    if len(lines) > 2 * MAX_ENTRIES:
        _rewrite(path, entries)
    return entries


def _decoded(line: str) -> str | None:
    with suppress(ValueError, RecursionError):
        entry = json.loads(line)
        return entry if isinstance(entry, str) else None
    return None


def append(path: Path, entry: str) -> None:
    """Adds an entry. A file that cannot be written is no reason to lose what was typed: then it is not added."""
    if len(entry) > MAX_ENTRY:
        return
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, os.O_APPEND, [entry])


def _rewrite(path: Path, entries: list[str]) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        _write(new, os.O_TRUNC, entries)
        new.replace(path)


def _write(path: Path, flag: int, entries: list[str]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write("".join(f"{json.dumps(entry)}\n" for entry in entries).encode())
