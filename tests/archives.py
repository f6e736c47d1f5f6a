"""Files for an engine: as a build's context, or to be put into a container."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

READABLE = 0o644


def packed(files: Mapping[str, tuple[bytes, int]]) -> io.BytesIO:
    """A tar archive of these: path -> content and mode."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    archive.seek(0)
    return archive
