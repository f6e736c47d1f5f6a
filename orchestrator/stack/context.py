"""The files of the executor image: which they are, the tag that follows from them, the archive that the engine gets."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from orchestrator.errors import EngineError
from orchestrator.stack import base_image

REPOSITORY = "cellblock-executor"
_LOCKS = ("requirements-supervisor.lock", "requirements-runner.lock", "requirements-build.lock")
_DIGITS = 12


def image_dir() -> Path:
    """``executor_image/``, beside the ``orchestrator`` package in a checkout and in site-packages alike."""
    return Path(__file__).parents[2] / "executor_image"


def lock_files() -> list[Path]:
    """The lock files of everything that the image installs."""
    return [image_dir() / name for name in _LOCKS]


def source_files(image: Path, api: Path) -> dict[str, Path]:
    """Name in the build context -> file, sorted: all of the image's folder, and the stubs of the wire."""
    files = {f"executor_image/{file.relative_to(image)}": file for file in image.rglob("*") if file.is_file()}
    files |= {f"executor_api/{file.relative_to(api)}": file for file in api.rglob("*.py")}
    return {name: files[name] for name in sorted(files) if "__pycache__" not in name}


def digest(files: Mapping[str, Path], *also: str) -> str:
    """Twelve hex digits that change when a file, its name, or anything in ``also`` does."""
    total = hashlib.sha256("\0".join(also).encode())
    for name, file in files.items():
        content = file.read_bytes()
        total.update(f"\0{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()[:_DIGITS]


def our_files() -> dict[str, Path]:
    """``source_files`` of this installation.

    Raises:
        EngineError: they are not where they belong.
    """
    spec = importlib.util.find_spec("executor_api")
    if spec is None or spec.origin is None or not (image_dir() / "Dockerfile").is_file():
        raise EngineError(
            f"the files of the executor image are missing beside {image_dir().parent}; reinstall cellblock"
        )
    return source_files(image_dir(), Path(spec.origin).parent)


@functools.cache
def image_tag() -> str:
    """The executor image that belongs to these sources, whether it has been built or not."""
    return f"{REPOSITORY}:{digest(our_files(), base_image.local_tag())}"


def pack(files: Mapping[str, Path], archive: IO[bytes]) -> None:
    """Writes the build context: same files, same bytes, whoever packs them and whenever."""
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, file in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = file.stat().st_size, 0o644
            with file.open("rb") as content:
                tar.addfile(entry, content)
