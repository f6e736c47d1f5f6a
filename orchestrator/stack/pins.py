"""Which image was built here: its id, kept by its name, so that another one under the same name is told apart."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from orchestrator.errors import EngineError
from orchestrator.stack.places import cache_dir


def pinned(name: str) -> str:
    """The id that was kept for an image's name; empty if none was, by this user.

    Raises:
        EngineError: it cannot be read, so nobody can tell whether the image is still the one that was kept.
    """
    file = _file(name)
    try:
        return file.read_text("ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise EngineError(f"{file}, which says which image was built here, cannot be read: {reason}") from None


def pin(name: str, image_id: str) -> None:
    """Keeps the id of an image that has just been built or looked at. Where nothing can be written, nothing is kept."""
    file = _file(name)
    new = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(f"{image_id}\n")
        new.replace(file)  # whoever reads meanwhile reads the old one or the new one


def _file(name: str) -> Path:
    return cache_dir() / "images" / name.replace("/", "_").replace(":", "_")
