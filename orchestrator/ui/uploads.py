"""Files that a visitor uploads: which are taken, under which names they are kept, and how an agent is given them.

Pictures go to the model with the task. Every other file becomes a variable, of text where it is UTF-8 and of a type
that is text, of bytes else: code in a sandbox reads it, and a tool call passes it on by its name. No path of this host
is told to a model. A file's name is hostile: what is kept of it cannot lead out of the folder.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.media import AgentImage

DEFAULT_TYPES = (".pdf", ".docx", ".txt", ".csv", ".md", ".png", ".jpg", ".jpeg")
PICTURES = frozenset((".png", ".jpg", ".jpeg", ".gif", ".webp"))
TEXTS = frozenset((".txt", ".csv", ".md", ".json", ".tsv", ".html", ".xml", ".yaml", ".yml", ".py", ".log"))
MAX_FILES = 8  # of one message
MAX_PICTURE = 8 << 20  # bytes
MAX_VALUES = 2_000_000  # bytes of all other files of one message: what can enter a sandbox at once is 2 MiB
MAX_KEPT = 200 << 20  # bytes of all files of one visitor
MAX_NAME = 80  # characters
_ODD = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it was uploaded; ``name`` is safe, ``variable`` a Python identifier."""

    name: str
    variable: str
    data: bytes

    @property
    def is_picture(self) -> bool:
        """By the type in its name."""
        return Path(self.name).suffix in PICTURES

    def value(self) -> str | bytes:
        """What the agent's variable holds."""
        if Path(self.name).suffix not in TEXTS:
            return self.data
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return self.data


@dataclass(frozen=True, slots=True)
class Handover:
    """What a run is given of a message with files: the arguments of ``run``."""

    task: str
    images: tuple[AgentImage, ...] = ()
    additional_args: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, task: str, files: Sequence[Upload]) -> Handover:
        """``task`` with the files' names.

        Raises:
            ConfigError: a picture is none.
        """
        if not files:
            return cls(task)
        told = [_told(file) for file in files]
        text = "\n".join((task or "Look at these files.", "", "The user uploaded these files:", *told))
        return cls(
            text,
            tuple(_picture(file) for file in files if file.is_picture),
            {file.variable: file.value() for file in files if not file.is_picture},
        )


class UploadFolder:
    """The files of one visitor, in a folder of their own below ``folder``, until ``clear()``.

    Args:
        folder: made if it is not there.
        types: endings of names that are taken, with their dots.
        taken: names that no variable may have, such as those of tools.
    """

    def __init__(self, folder: Path, types: Collection[str] = DEFAULT_TYPES, taken: Collection[str] = ()) -> None:
        self._folder = folder
        self._types = frozenset(kind.lower() for kind in types)
        self._variables = set(taken)
        self._own: Path | None = None
        self._size = 0

    def take(self, paths: Iterable[str | Path]) -> list[Upload]:
        """Copies of the files at ``paths``, which the server has put there. Blocks.

        Raises:
            ConfigError: too many, too large, or of a type that is not taken; nothing was kept.
        """
        found = [Path(path) for path in paths]
        if len(found) > MAX_FILES:
            raise ConfigError(f"{len(found)} files in one message; at most {MAX_FILES} are taken")
        read = [(self._checked_name(path.name), _read(path)) for path in found]
        _check_sizes(read, self._size)
        return [self._keep(name, data) for name, data in read]

    def clear(self) -> None:
        """Removes them all. Blocks."""
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            self._own, self._size = None, 0

    def _checked_name(self, given: str) -> str:
        name = safe_name(given)
        if Path(name).suffix not in self._types:
            raise ConfigError(f"{name}: files of this type are not taken; there are {', '.join(sorted(self._types))}")
        return name

    def _keep(self, name: str, data: bytes) -> Upload:
        if self._own is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._own = Path(tempfile.mkdtemp(prefix="visitor-", dir=self._folder))  # for this user's eyes only
        upload = Upload(self._free(name), self._variable(name), data)
        with open(self._own / upload.name, "xb") as file:
            file.write(data)
        self._size += len(data)
        return upload

    def _free(self, name: str) -> str:
        assert self._own
        path, number = Path(name), 2
        while (self._own / name).exists():
            name, number = f"{path.stem}_{number}{path.suffix}", number + 1
        return name

    def _variable(self, name: str) -> str:
        first = variable = "file_" + re.sub(r"\W", "_", name, flags=re.ASCII)
        number = 2
        while variable in self._variables:
            variable, number = f"{first}_{number}", number + 1
        self._variables.add(variable)
        return variable


def safe_name(given: str) -> str:
    """A file's name of letters, digits, ``.``, ``-`` and ``_`` alone, not hidden, with its ending in small letters."""
    name = unicodedata.normalize("NFKC", given.replace("\\", "/").rpartition("/")[2])
    name = _ODD.sub("_", name).strip("._-") or "file"
    stem, dot, ending = name.rpartition(".")
    if not dot:
        return name[:MAX_NAME]
    ending = ending[:16].lower()
    return f"{stem[: MAX_NAME - len(ending) - 1]}.{ending}"


def _read(path: Path) -> bytes:
    limit = max(MAX_PICTURE, MAX_VALUES)
    try:
        with open(path, "rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{safe_name(path.name)}: it cannot be read ({type(error).__name__})") from None


def _check_sizes(files: Sequence[tuple[str, bytes]], kept: int) -> None:
    values = 0
    for name, data in files:
        if Path(name).suffix in PICTURES:
            if len(data) > MAX_PICTURE:
                raise ConfigError(f"{name}: a picture may have {MAX_PICTURE:,} bytes")
        else:
            values += len(data)
    if values > MAX_VALUES:
        raise ConfigError(f"the files of one message may have {MAX_VALUES:,} bytes together, pictures aside")
    if kept + sum(len(data) for _, data in files) > MAX_KEPT:
        raise ConfigError(f"the files of one conversation may have {MAX_KEPT:,} bytes together; start over")


def _picture(file: Upload) -> AgentImage:
    try:
        return AgentImage.of(file.data)
    except ConfigError:
        raise ConfigError(f"{file.name}: this is no picture, whatever its name says") from None


def _told(file: Upload) -> str:
    if file.is_picture:
        return f"- {file.name} ({len(file.data):,} bytes): a picture, shown with this message"
    kind = "text" if isinstance(file.value(), str) else "bytes"
    return f"- {file.name} ({len(file.data):,} bytes): its contents are in the variable {file.variable}, as {kind}"
