"""The books of one execution: output with head and tail, usage, why it is being stopped."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from executor_api.v1 import executor_pb2 as pb

from executor_image.frames import NONCE_BYTES
from executor_image.supervisor.proc import Reading

OUTPUT_KILL_FACTOR = 64  # times the cap: code that writes this much is stopped, not drained for ever
MIN_CHARGE = 64  # what a piece counts for at the least, so that 10^7 writes of one byte cannot cost 10^7 objects

Emit = Callable[[pb.Output.Stream, bytes, int], None]


class CappedOutput:
    """Passes the first half of the cap on at once, keeps the newest of the rest up to the other half."""

    def __init__(self, cap: int, emit: Emit) -> None:
        self._head_left = cap // 2
        self._tail_cap = cap // 2
        self._kill_at = cap * OUTPUT_KILL_FACTOR
        self._tail: deque[tuple[pb.Output.Stream, memoryview]] = deque()
        self._tail_size = 0
        self._emit = emit
        self.total = 0
        self.dropped = 0

    @property
    def flooded(self) -> bool:
        """True if the execution has to be stopped for what it writes."""
        return self.total > self._kill_at

    def add(self, stream: pb.Output.Stream, text: bytes) -> None:
        """Takes in one piece."""
        self.total += len(text)
        if self._head_left:
            head, text = text[: self._head_left], text[self._head_left :]
            self._head_left -= len(head)
            self._emit(stream, head, 0)
        if text:
            self._tail.append((stream, memoryview(text)))  # a view is cut without a copy
            self._tail_size += max(MIN_CHARGE, len(text))
            while (excess := self._tail_size - self._tail_cap) > 0:
                self._drop_oldest(excess)

    def _drop_oldest(self, excess: int) -> None:
        """Drops the oldest piece, or only as much of it as is too much."""
        stream, text = self._tail.popleft()
        self._tail_size -= max(MIN_CHARGE, len(text))
        rest = text[excess:] if len(text) - excess >= MIN_CHARGE else text[:0]
        self.dropped += len(text) - len(rest)
        if rest:
            self._tail.appendleft((stream, rest))
            self._tail_size += len(rest)

    def finish(self) -> None:
        """Passes the tail on, the gap before it marked."""
        before = self.dropped
        for stream, text in self._tail:
            self._emit(stream, bytes(text), before)
            before = 0
        self._tail.clear()


@dataclass
class Running:
    """The execution under way."""

    id: int
    output: CappedOutput
    before: Reading
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(NONCE_BYTES))
    started: float = field(default_factory=time.monotonic)
    calls: set[int] = field(default_factory=set)  # numbers of its tool calls
    final_answer: bytes = b""
    stopping: pb.Finished.Status | None = None  # why it is being stopped, once it is
    killed: bool = False
    fault: str = ""  # what the process did that it must not do
    timer: asyncio.TimerHandle | None = None

    def usage(self, now: Reading, peak_memory: int) -> pb.Usage:
        """What it has used."""
        return pb.Usage(
            wall_seconds=time.monotonic() - self.started,
            cpu_seconds=max(0.0, now.cpu_seconds - self.before.cpu_seconds),
            peak_memory_bytes=peak_memory,
            output_bytes=self.output.total,
            tool_calls=len(self.calls),
        )
