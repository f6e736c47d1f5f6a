"""Amazon's event stream encoding, as much of it as a test's server needs.

https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html
"""

from __future__ import annotations

import json
import struct
from binascii import crc32
from collections.abc import Mapping
from typing import Any

_STRING = 7  # the type of a header's value


def event(kind: str, payload: Mapping[str, Any]) -> bytes:
    """One event of a stream."""
    return _message({":message-type": "event", ":event-type": kind, ":content-type": "application/json"}, payload)


def exception(kind: str, message: str) -> bytes:
    """A failure in the middle of a stream."""
    return _message({":message-type": "exception", ":exception-type": kind}, {"message": message})


def _message(headers: Mapping[str, str], payload: Mapping[str, Any]) -> bytes:
    head = b"".join(_header(name, value) for name, value in headers.items())
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 4 * 3 + len(head) + len(body) + 4, len(head))
    message = prelude + struct.pack("!I", crc32(prelude)) + head + body
    return message + struct.pack("!I", crc32(message))


def _header(name: str, value: str) -> bytes:
    data = value.encode()
    return struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _STRING, len(data)) + data
