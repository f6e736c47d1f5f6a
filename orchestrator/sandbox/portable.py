"""What values are on the host where Python has nothing of its own for them, and the bounds of any value."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from executor_api.v1 import executor_pb2 as pb

MAX_DEPTH = 32
MAX_NODES = 100_000
MAX_BYTES = 2 << 20
MAX_INT_BYTES = 512
MAX_DECIMAL_CHARS = 1000
# How struct writes one item of each dtype that can travel, and how many bytes that takes.
_SIGNS = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
    "complex64": "ff",
    "complex128": "dd",
}
ITEM_SIZES = {dtype: struct.calcsize(f"<{sign}") for dtype, sign in _SIGNS.items()}
FORMATS: Mapping[str, pb.Media.Format] = {
    "image/png": pb.Media.FORMAT_PNG,
    "image/jpeg": pb.Media.FORMAT_JPEG,
    "image/gif": pb.Media.FORMAT_GIF,
    "image/webp": pb.Media.FORMAT_WEBP,
    "audio/wav": pb.Media.FORMAT_WAV,
    "audio/mpeg": pb.Media.FORMAT_MPEG,
    "audio/ogg": pb.Media.FORMAT_OGG,
    "audio/flac": pb.Media.FORMAT_FLAC,
}


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something that could not leave the sandbox: the name of its type there, and its repr."""

    type_name: str
    text: str

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class NDArray:
    """A numpy array as plain data: numpy's dtype name, the shape, and the items in C order, little endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def to_numpy(self) -> Any:
        """The array, writable. Needs numpy on the host."""
        import numpy  # not a dependency: only who asks for arrays needs it

        return numpy.frombuffer(self.data, numpy.dtype(self.dtype).newbyteorder("<")).reshape(self.shape).copy()

    def to_list(self) -> Any:
        """The array as nested lists; without dimensions, its one item. Needs no numpy."""
        items = list(struct.iter_unpack(f"<{_SIGNS[self.dtype]}", self.data))
        is_complex = self.dtype.startswith("complex")
        return _nested([complex(*parts) if is_complex else parts[0] for parts in items], self.shape)


def _nested(items: list[Any], shape: tuple[int, ...]) -> Any:
    if len(shape) < 2:
        return items if shape else items[0]
    if not items:  # the dimensions before an empty one may be of any size
        return []
    step = math.prod(shape[1:])
    return [_nested(items[place : place + step], shape[1:]) for place in range(0, len(items), step)]
