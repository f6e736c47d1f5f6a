"""Server-sent events: bytes as they arrive -> the data of each event. No I/O.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

from collections.abc import Iterator


class EventData:
    """Takes the bytes of an event stream in any pieces. Names, ids and comments of events are left out.

    Attributes:
        held: bytes of the event that has begun and not ended.
    """

    def __init__(self) -> None:
        self._line = bytearray()  # the beginning of a line whose end has not come
        self._data: list[bytes] = []  # of the event whose end has not come
        self._after_cr = False
        self.held = 0

    def feed(self, piece: bytes) -> Iterator[str]:
        """The data of each event that ends within ``piece``."""
        for line in self._lines(piece):
            if line:
                self._field(line)
            else:
                yield from self.rest()

    def rest(self) -> Iterator[str]:
        """The data of an event that has no end: some servers leave out the empty line after the last one."""
        self._field(bytes(self._line))
        self._line.clear()
        if self._data:
            yield b"\n".join(self._data).decode("utf-8", "replace")
        self._data = []
        self.held = 0

    def _lines(self, piece: bytes) -> Iterator[bytes]:
        """Complete lines without their ends, which are CR, LF or both, in one piece or in two."""
        if self._after_cr and piece:
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        for part in piece.splitlines(keepends=True):
            text = part.rstrip(b"\r\n")
            self._line += text
            self.held += len(part)
            if len(text) < len(part):
                line = bytes(self._line)
                self._line.clear()
                yield line
            self._after_cr = part.endswith(b"\r")

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
