"""Images and sound as plain data: what tools, models, sandboxes and answers hand to each other.

Nothing here decodes: pictures may come from a sandbox, and a decoder is a large thing to show hostile bytes to. Who
wants the pixels asks for them with ``to_pil()``.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from orchestrator.errors import ConfigError

MAX_PIXELS = 64_000_000  # of a picture that is decoded: 256 MB at four bytes each

# What such data begins with; RIFF files say what they are after their length.
_BEGINNINGS: Mapping[str, tuple[bytes, ...]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "audio/mpeg": (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"),
    "audio/ogg": (b"OggS",),
    "audio/flac": (b"fLaC",),
}
# Pillow's modes that PNG does not have, and what they become.
_INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(("CMYK", "YCbCr", "HSV", "RGBX"), "RGB"),
    "RGBa": "RGBA",
    "PA": "RGBA",
    "La": "LA",
}
_RIFF: Mapping[bytes, str] = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
MIME_TYPES = frozenset({*_BEGINNINGS, *_RIFF.values()})


def mime_of(data: bytes) -> str | None:
    """What kind of picture or sound ``data`` begins like; None if it is none that is known here."""
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    return next((mime for mime, begins in _BEGINNINGS.items() if data.startswith(begins)), None)


@dataclass(frozen=True, slots=True)
class Media:
    """``data`` in the format ``mime``, one of ``MIME_TYPES``. Use ``AgentImage`` or ``AgentAudio``.

    Raises:
        ConfigError: the data does not begin like that format, or the class is for another kind.
    """

    data: bytes
    mime: str

    _kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if not self.mime.startswith(self._kind) or mime_of(self.data) != self.mime:
            raise ConfigError(f"{type(self).__name__}: these {len(self.data):,} bytes are no {self.mime}")

    @classmethod
    def of(cls, source: bytes | str | Path | Media | Any) -> Self:
        """Of encoded bytes, a file's path, or (for a picture) an image of Pillow, which becomes a PNG.

        Raises:
            ConfigError: it is none of these, or of a format that is not known here.
        """
        match source:
            case cls():
                return source
            case bytes():
                data = source
            case str() | Path():
                data = _read(Path(source))
            case _ if is_picture(type(source)):
                data = _png(source)
            case _:
                raise ConfigError(f"{cls.__name__}: give bytes, a path or an image, not {type(source).__name__}")
        mime = mime_of(data)
        if mime is None:
            raise ConfigError(f"{cls.__name__}: unknown format; there are {', '.join(sorted(MIME_TYPES))}")
        return cls(data, mime)

    def save(self, path: str | Path) -> None:
        """Writes the data to a file as it is."""
        Path(path).write_bytes(self.data)

    def to_data_url(self) -> str:
        """``data:image/png;base64,…``, as models and browsers take it."""
        return f"data:{self.mime};base64,{base64.b64encode(self.data).decode()}"

    def _repr_mimebundle_(self, **_: Any) -> Mapping[str, bytes]:
        """For notebooks."""
        return {self.mime: self.data}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.mime}, {len(self.data):,} bytes>"


class AgentImage(Media):
    """A picture, encoded; ``AgentImage.of(…)`` makes one of bytes, a path or an image of Pillow."""

    __slots__ = ()
    _kind = "image/"

    def to_pil(self) -> Any:
        """The picture as an image of Pillow, decoded. Needs Pillow, and decodes only what its format says it is.

        Raises:
            ConfigError: Pillow is missing, the data is broken, or it has more than ``MAX_PIXELS``.
        """
        try:
            from PIL import Image, UnidentifiedImageError  # only who asks for pixels needs it
        except ImportError:
            raise ConfigError("to_pil() needs Pillow; install it with: pip install pillow") from None
        try:
            image = Image.open(io.BytesIO(self.data), formats=[self.mime.removeprefix("image/")])
            if image.width * image.height > MAX_PIXELS:
                raise ConfigError(f"a picture of {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are")
            image.load()
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ConfigError(f"the picture cannot be decoded: {error}") from None
        return image


class AgentAudio(Media):
    """Sound, encoded; ``AgentAudio.of(…)`` makes one of bytes or a path."""

    __slots__ = ()
    _kind = "audio/"


def media_of(data: bytes, mime: str) -> AgentImage | AgentAudio:
    """The right one of the two.

    Raises:
        ConfigError: the data is not what ``mime`` says, or that is not known here.
    """
    return AgentAudio(data, mime) if mime.startswith("audio/") else AgentImage(data, mime)


def is_picture(hint: object) -> bool:
    """Whether it is Pillow's class for images, or one of its subclasses. Does not import Pillow."""
    image = getattr(sys.modules.get("PIL.Image"), "Image", None)  # who has such a class has imported it
    return isinstance(image, type) and isinstance(hint, type) and issubclass(hint, image)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    try:
        instead = _INSTEAD.get(image.mode)
        (image.convert(instead) if instead else image).save(buffer, "PNG")
    except (OSError, ValueError) as error:  # of a mode that is not for pictures, or it has been closed
        raise ConfigError(f"a picture that cannot be stored as PNG ({error}); convert it to RGB first") from None
    return buffer.getvalue()
