"""A program in a terminal of its own, as a person has it: keys go in, what is shown comes out."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from typing import Self

DEADLINE = 30.0  # seconds for anything to appear

# A session of its own, whose controlling terminal is standard input, so that Ctrl-C is a signal; the pid stays.
_LAUNCH = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
_SEQUENCES = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|\x1b[=>]")
_WHERE = b"\x1b[6n"  # a question that every terminal answers: where is the cursor?


class Terminal:
    """``with Terminal("-m", "package") as terminal``; the process is killed at the end, if it has not left."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self._keys, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", **(env or {})},
        )
        os.close(theirs)
        self.raw = b""  # everything that it wrote
        self._seen = 0  # how much of the text has been expected already
        self._answered = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        self.hang_up()

    def hang_up(self) -> None:
        """The terminal is gone, as when its window is closed."""
        if self._keys >= 0:
            os.close(self._keys)
            self._keys = -1

    def press(self, keys: str) -> None:
        """Keys as they are; Enter is ``\\r``, Ctrl-C ``\\x03``."""
        os.write(self._keys, keys.encode())

    def paste(self, text: str) -> None:
        """Text as terminals paste it."""
        self.press(f"\x1b[200~{text}\x1b[201~")

    @property
    def text(self) -> str:
        """What was shown, without the sequences."""
        return _SEQUENCES.sub(b"", self.raw).decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "")

    def expect(self, words: str) -> str:
        """Waits for ``words`` to be shown after what was expected before; gives all that was shown up to them."""
        deadline = time.monotonic() + DEADLINE
        while (at := self.text.find(words, self._seen)) < 0:
            rest = self.text[self._seen :]
            assert self._read(deadline), f"{words!r} was not shown, but {rest!r}"
        shown = self.text[self._seen : at]
        self._seen = at + len(words)
        return shown

    def leave(self) -> int:
        """Waits for the end of the process; gives its exit code."""
        deadline = time.monotonic() + DEADLINE
        while self._read(deadline):
            pass
        return self.process.wait(DEADLINE)

    def _read(self, deadline: float) -> bool:
        """Takes in more; False at the end, or when the deadline has passed."""
        ready, _, _ = select.select([self._keys], [], [], max(0.0, deadline - time.monotonic()))
        try:
            piece = os.read(self._keys, 1 << 16) if ready else b""
        except OSError:  # EIO: nobody has the other side any more
            piece = b""
        self.raw += piece
        while self.raw.count(_WHERE) > self._answered:
            self._answered += 1
            self.press("\x1b[50;1R")  # at the last line, where it is once the screen is full
        return bool(piece)
