"""``sys.stdout`` and ``sys.stderr`` of user code: lines go up as frames, so their order is exact.

Line-buffered, as on a terminal: what was printed before a crash or a hang in C code has left the process.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

from executor_image.frames import MAX_PIECE

Send = Callable[[int, bytes], None]


class FrameWriter(io.TextIOBase):
    """A text stream that sends what is written as frames of one type."""

    def __init__(self, kind: int, fd: int, name: str, send: Send) -> None:
        self._kind = kind
        self._fd = fd
        self._send = send
        self._pending: list[str] = []
        self._lock = threading.RLock()
        self.name = name
        self.buffer = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Text is sent as UTF-8."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """A lone surrogate is shown, not an error: output must not fail the code that writes it."""
        return "backslashreplace"

    def after_fork(self) -> None:
        """In a copy: nobody holds the lock, and what was pending is the original's to send."""
        self._lock = threading.RLock()
        self._pending = []

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The process's own descriptor, for code that writes below Python."""
        return self._fd

    def write(self, text: str, /) -> int:
        """Takes ``text``; sends it once a line is complete."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            self._pending.append(text)
            if "\n" in text or len(self._pending) > 256 or len(text) > MAX_PIECE:
                self.flush()
        return len(text)

    def flush(self) -> None:
        """Sends what is pending."""
        with self._lock:
            text, self._pending = "".join(self._pending), []
            if text:
                self.send_bytes(text.encode("utf-8", "backslashreplace"))

    def send_bytes(self, data: bytes) -> None:
        """Sends bytes as they are, in pieces."""
        for start in range(0, len(data), MAX_PIECE):
            self._send(self._kind, data[start : start + MAX_PIECE])


class _Bytes(io.RawIOBase):
    """``sys.stdout.buffer``."""

    def __init__(self, text: FrameWriter) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        content = memoryview(data).tobytes()  # any buffer, counted in bytes
        self._text.flush()
        self._text.send_bytes(content)
        return len(content)
