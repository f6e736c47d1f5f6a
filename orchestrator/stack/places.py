"""Where cellblock keeps files on this machine."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

STORE = "service.db"  # of the service, in the folder for state
AUDIT = "audit.jsonl"  # beside the store, if the settings name no other
SERVICE_SOCKET = "service.sock"  # of the service, in the folder of the sessions
# The name of one session's folder, where its socket lives. While it is made, the name also says for whom: there is no
# moment in which nothing does. Clean-up touches nothing that is called otherwise.
_SESSION_FOLDER = re.compile(r"(?:\.(?P<owner>[^.]+)\.)?(?P<session>[0-9a-f]{16})")


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
    """What outlives a session: wheels, which can be downloaded again; which images were built here; dockerd's log."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cellblock"


def state_dir() -> Path:
    """What must not be lost: the service's store, the records of its runs, its log."""
    if os.geteuid() == 0 and "XDG_STATE_HOME" not in os.environ:
        return Path("/var/lib/cellblock")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cellblock"


def unfinished_folder(runtime: Path, session: str, owner: str) -> Path:
    """A session's folder as long as there is no owner's name in it."""
    return runtime / f".{owner}.{session}"


def session_of(folder: str) -> tuple[str, str | None] | None:
    """The session that a folder of that name is of, and its owner if the name tells it; None if it is of none."""
    found = _SESSION_FOLDER.fullmatch(folder)
    return (found["session"], found["owner"]) if found else None


def remove_session_folders(runtime: Path) -> int:
    """Removes what sessions left in ``runtime``, and the folder itself if nothing else is in it. Gives their number."""
    if not runtime.is_dir():
        return 0
    folders = [entry for entry in runtime.iterdir() if entry.is_dir() and session_of(entry.name)]
    for folder in folders:
        shutil.rmtree(folder)
    if not any(runtime.iterdir()):
        runtime.rmdir()
    return len(folders)
