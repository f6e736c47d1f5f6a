"""numpy's arrays and scalars. Without numpy an array from the host is nested lists."""

from __future__ import annotations

import datetime
import math
import struct
import sys
from typing import Any

from executor_image.frames import MAX_VALUE
from executor_image.runner.portable import DTYPES, SIGNS, Encode, Encoder, NotPortable, library, of_class, refuse
from executor_image.runner.protowire import chunk, fields, packed, unsigned

_PLAIN = (bool, int, float, complex, str, bytes, tuple, datetime.date, datetime.datetime, datetime.timedelta)
_TIMES = (datetime.date, datetime.datetime, datetime.timedelta)


def encoder(kind: type) -> Encode | None:
    """How a value of that class is encoded, if it is one of numpy's own; a subclass's methods are the user's."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or vars(numpy).get(of_class(kind, "__name__")) is not kind:
        return None
    if kind is numpy.ndarray:
        return encode_array
    return _scalar if issubclass(kind, numpy.generic) else None


def _scalar(encoder: Encoder, value: Any, path: str, depth: int) -> bytes:
    item = value.item()
    # A time too fine for Python's is a number, without its unit; one that is not a time is None.
    if type(item) not in (_TIMES if value.dtype.kind in "mM" else _PLAIN):
        return refuse(encoder, value, path, depth)
    return encoder.encoded(item, path, depth)


def encode_array(_: Encoder, value: Any, path: str, __: int) -> bytes:
    """A Value with an NDArray."""
    dtype = value.dtype.name
    if dtype not in DTYPES:
        raise NotPortable(
            f"{path}: a numpy array of dtype {dtype}; it can travel as one of {', '.join(sorted(DTYPES))}"
        )
    if value.nbytes > MAX_VALUE:
        raise NotPortable(f"{path}: a numpy array of {value.nbytes:,} bytes; at most {MAX_VALUE:,} can travel")
    data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    shape = b"".join(unsigned(2, size) for size in value.shape)
    return chunk(19, chunk(1, dtype.encode()), shape, chunk(3, data))


# ------------------------------------------------------------------------------- from the host, which is trusted


def array_of(view: memoryview) -> Any:
    """The array of a serialised NDArray, or nested lists."""
    parts: dict[int, Any] = dict(fields(view))
    dtype, shape, data = bytes(parts[1]).decode(), packed(parts.get(2, memoryview(b""))), bytes(parts.get(3, b""))
    numpy = library("numpy")
    if numpy is None:
        return _nested(_items(dtype, data), shape)
    return numpy.frombuffer(data, dtype).reshape(shape).copy()


def _items(dtype: str, data: bytes) -> list[Any]:
    if dtype.startswith("complex"):
        return [complex(*pair) for pair in struct.iter_unpack(f"<{SIGNS[dtype]}", data)]
    return [item for (item,) in struct.iter_unpack(f"<{SIGNS[dtype]}", data)]


def _nested(items: list[Any], shape: list[int]) -> Any:
    if len(shape) < 2:
        return items if shape else items[0]
    step = math.prod(shape[1:])
    return [_nested(items[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]
