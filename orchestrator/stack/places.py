"""Where cellblock keeps files on this machine."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

# The name of one session's folder, where its socket lives. Clean-up touches nothing that is called otherwise.
_SESSION_NAME = re.compile(r"[0-9a-f]{16}")


def runtime_dir(setting: str = "") -> Path:
    """Where session folders live: ``Config.runtime_dir``, or by default a folder of this user alone."""
    if setting:
        return Path(setting)
    if os.geteuid() == 0:
        return Path("/run/cellblock")
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base) / "cellblock"
    return Path.home() / ".cache" / "cellblock" / "run"


def cache_dir() -> Path:
    """What can be downloaded again: wheels."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cellblock"


def remove_session_folders(runtime: Path) -> int:
    """Removes what sessions left in ``runtime``, and the folder itself if nothing else is in it. Gives their number."""
    if not runtime.is_dir():
        return 0
    folders = [entry for entry in runtime.iterdir() if entry.is_dir() and _SESSION_NAME.fullmatch(entry.name)]
    for folder in folders:
        shutil.rmtree(folder)
    if not any(runtime.iterdir()):
        runtime.rmdir()
    return len(folders)
