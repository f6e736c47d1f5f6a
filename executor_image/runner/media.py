"""Pictures and sound. Pillow's pictures and matplotlib's figures leave as PNG; what comes is Pillow's, or ``Media``."""

from __future__ import annotations

import io
from typing import Any

from executor_image.frames import MAX_VALUE
from executor_image.runner.portable import Encode, Encoder, NotPortable, class_of, library, of_class, safe_repr
from executor_image.runner.protowire import chunk, fields, unsigned

_FORMATS = {  # as the wire numbers them
    "image/png": 1,
    "image/jpeg": 2,
    "image/gif": 3,
    "image/webp": 4,
    "audio/wav": 5,
    "audio/mpeg": 6,
    "audio/ogg": 7,
    "audio/flac": 8,
}
_MIMES = {number: mime for mime, number in _FORMATS.items()}
_BEGINNINGS = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "audio/mpeg": (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"),
    "audio/ogg": (b"OggS",),
    "audio/flac": (b"fLaC",),
}
_RIFF = {"image/webp": b"WEBP", "audio/wav": b"WAVE"}  # what stands there after the length
# Pillow's modes that PNG does not have, and what they become.
_INSTEAD = {
    **dict.fromkeys(("CMYK", "YCbCr", "HSV", "RGBX"), "RGB"),
    "RGBa": "RGBA",
    "PA": "RGBA",
    "La": "LA",
}


class Media:
    """A picture or sound as it is stored: ``mime`` and ``data``. What a tool gave where nothing here can open it."""

    def __init__(self, mime: str, data: bytes) -> None:
        self.mime = mime
        self.data = data

    def _repr_mimebundle_(self, **_: object) -> dict[str, bytes]:
        return {self.mime: self.data}

    def __repr__(self) -> str:
        return f"<Media: {self.mime}, {len(self.data):,} bytes>"


def encoder(kind: type) -> Encode | None:
    """How a value of that class is encoded, if it is one of Pillow's or matplotlib's own."""
    if kind is class_of("matplotlib.figure", "Figure"):
        return _figure
    image = class_of("PIL.Image", "Image")
    if image is None or image not in of_class(kind, "__mro__"):
        return None
    module = of_class(kind, "__module__")  # a picture from a file is of a class of the format's
    is_theirs = type(module) is str and module.startswith("PIL.")
    return _picture if is_theirs and class_of(module, of_class(kind, "__name__")) is kind else None


def encode(_: Encoder, value: Media, path: str, __: int) -> bytes:
    """A Value with Media. The host takes none that does not begin as its format does."""
    mime, data = value.mime, value.data
    if type(mime) is not str or type(data) is not bytes or not _begins(mime, data):
        known = ", ".join(_FORMATS)
        raise NotPortable(f"{path}: Media whose data is not what its mime says; it can travel as one of {known}")
    if len(data) > MAX_VALUE:
        raise NotPortable(f"{path}: {mime} of {len(data):,} bytes; at most {MAX_VALUE:,} can travel")
    return chunk(21, unsigned(1, _FORMATS[mime]), chunk(2, data))


def _begins(mime: str, data: bytes) -> bool:
    if mime in _RIFF:
        return data[:4] == b"RIFF" and data[8:12] == _RIFF[mime]
    return data.startswith(_BEGINNINGS.get(mime, ()))


def _figure(encoder: Encoder, value: Any, path: str, depth: int) -> bytes:
    file = io.BytesIO()
    try:
        type(value).savefig(value, file, format="png")
    except Exception as error:  # noqa: BLE001 — drawing runs what the code has put into the figure
        raise NotPortable(f"{path}: a figure that cannot be drawn ({safe_repr(error, 200)})") from None
    return encode(encoder, Media("image/png", file.getvalue()), path, depth)


def _picture(encoder: Encoder, value: Any, path: str, depth: int) -> bytes:
    file = io.BytesIO()
    try:
        instead = _INSTEAD.get(value.mode)
        (value.convert(instead) if instead else value).save(file, "PNG")
    except (OSError, ValueError) as error:  # of a mode that is not for pictures, or it has been closed
        raise NotPortable(f"{path}: a picture that cannot be stored as PNG ({error})") from None
    return encode(encoder, Media("image/png", file.getvalue()), path, depth)


def png_in(encoded: bytes) -> bytes:
    """The data of a serialised Value that is a PNG; nothing if it is something else."""
    number, part = next(fields(memoryview(encoded)))
    if number != 21:
        return b""
    parts: dict[int, Any] = dict(fields(part))  # type: ignore[arg-type]
    return bytes(parts[2]) if parts[1] == _FORMATS["image/png"] else b""


# ------------------------------------------------------------------------------- from the host, which is trusted


def media_of(view: memoryview) -> Any:
    """The picture of a serialised Media as Pillow has it, decoded when it is used; else a ``Media``."""
    parts: dict[int, Any] = dict(fields(view))
    mime, data = _MIMES[parts[1]], bytes(parts.get(2, b""))
    image = library("PIL.Image") if mime.startswith("image/") else None
    try:
        return image.open(io.BytesIO(data), formats=[mime.removeprefix("image/")]) if image else Media(mime, data)
    except Exception:  # noqa: BLE001 — Pillow cannot read it, or will not: there is the data
        return Media(mime, data)
