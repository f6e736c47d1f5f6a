"""The record of an agent's runs: a file of JSON lines, each on the disk before the run goes on.

A run that ended anywhere, in a crash too, can be gone on with from it (see resuming.py). Lines are only ever added::

    begin      an agent opens the file: everything before belongs to another agent's life
    resumed    an agent goes on with what is there
    memory     what the agent remembers of before, without its having done it
    continued  what the runs before have left is taken over for another one, which has not begun
    run        a run begins: its task, its variables, how many steps it has
    step       a step has ended
    view       from now on the model is shown less (see compaction.py)
    call, end  a tool is called by the agent's code; it has ended
    sandbox    the agent works in a new sandbox, with no variables
    rebuilt    it does, but these steps were run again in it
    back       somebody else has taken the sandbox back to an earlier state
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.agents.given import Given
from orchestrator.agents.memory import AgentMemory
from orchestrator.agents.memory_json import memory_to_dict, step_to_dict, written_view
from orchestrator.agents.record_lock import hold
from orchestrator.agents.steps import KeptStep
from orchestrator.agents.tape import LEFT_OUT, CallEnd, RecordedCall, RecordingTape, written_call, written_end
from orchestrator.agents.value_json import written
from orchestrator.agents.watching import TakenBack
from orchestrator.errors import AgentError, ValueNotPortable
from orchestrator.sandbox.encoding import encode
from orchestrator.sandbox.values import decode

FORMAT, VERSION = "cellblock-run", 1
MAX_RESULTS = 256 << 20  # bytes of tools' results in a file; a run that has more is not rebuilt for certain


class Recorder:
    """Writes the record of one agent. A line is whole on the disk when its call returns.

    From the first line on, no other program can go on with the file as long as this object is there.

    Raises:
        AgentError: in each call: the file cannot be written. What would have been next is not done.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_open = False  # whether this agent has begun, or gone on with, what is there
        self.is_under_way = False  # whether an execution has begun whose step has not been written
        self.tape = RecordingTape(self._begin_call, self._end_call)
        self._backs: list[TakenBack] = []  # that are written
        self._telling = asyncio.Lock()
        self._lock = threading.Lock()  # tools write from threads
        self._has_begun = False  # a run
        self._is_held = False
        self._next_call = 1
        self._results = 0  # bytes of them
        self._state: set[str] = set()  # names of values that have been written

    async def claim(self) -> None:
        """Before what is there is read, to go on with it.

        Raises:
            AgentError: it cannot be opened, or another program goes on with it.
        """
        try:
            if not self._is_held:
                await asyncio.to_thread(hold, self.path, self)
        except OSError as error:
            raise AgentError(f"{self.path} cannot be read: {error.strerror}") from None
        self._is_held = True

    async def begin_run(self, given: Given, limit: int, reset: bool, memory: AgentMemory) -> None:
        """A run begins; what ``memory`` has before the first one, if that is kept, comes from somewhere else."""
        if not reset and not self._has_begun and memory.steps:
            await self._add({"kind": "memory", "memory": memory_to_dict(memory)})
        self._has_begun = True
        args = {name: _portable(value) for name, value in given.additional_args.items()}
        self._state |= args.keys()
        line = {"task": written(given.task), "images": written(list(given.images)), "args": written(args)}
        await self._add({"kind": "run", **line, "limit": limit, "reset": reset, "under_way": self.is_under_way})
        self.is_under_way = False

    async def step(self, step: KeptStep, state: Mapping[str, Any]) -> None:
        """A step has ended; ``state`` are values that a later one may name."""
        new = {name: value for name, value in state.items() if name not in self._state}
        self._state |= new.keys()
        await self._add({"kind": "step", "step": step_to_dict(step), "state": written(new)})
        self.is_under_way = False

    async def view(self, memory: AgentMemory) -> None:
        """The model is shown less of ``memory``."""
        await self._add({"kind": "view", "view": written_view(memory)})

    async def sandbox(self, name: str) -> None:
        """There is a new sandbox of this name."""
        await self._add({"kind": "sandbox", "name": name})

    async def rebuilt(self, counts: Sequence[tuple[int, int]], name: str) -> None:
        """There is a new one, in which recorded steps were run again: their numbers, and their new counts."""
        await self._add({"kind": "rebuilt", "counts": [list(pair) for pair in counts], "name": name})

    async def taken_back(self, back: TakenBack) -> None:
        """Somebody else has taken the sandbox back. Told of the same once more, waits until it is written."""
        async with self._telling:
            if not any(told is back for told in self._backs):
                await self._add({"kind": "back", "to": back.to, "at": back.at, "files": back.files})
                self._backs.append(back)

    async def resume(self, next_call: int, state: Mapping[str, Any]) -> None:
        """This agent goes on with what is there."""
        self.is_open = self._has_begun = True
        self._next_call = next_call
        self._state |= state.keys()
        await self._add({"kind": "resumed", "under_way": self.is_under_way})
        self.is_under_way = False

    def _begin_call(self, call: RecordedCall) -> int:
        with self._lock:
            number = self._next_call
            self._next_call += 1
        self._write(_line({"kind": "call", "call": number, **written_call(call)}))
        return number

    def _end_call(self, number: int, end: CallEnd) -> None:
        line = _line({"kind": "end", "call": number, **written_end(end)})
        with self._lock:
            self._results += len(line)
            is_too_much = self._results > MAX_RESULTS
        self._write(_line({"kind": "end", "call": number, **written_end(LEFT_OUT)}) if is_too_much else line)

    async def _add(self, line: Mapping[str, Any]) -> None:
        await asyncio.to_thread(lambda: self._write(_line(line)))

    def _write(self, line: bytes) -> None:
        with self._lock:
            try:
                if not self._is_held:
                    self._make()
                if not self.is_open:
                    _append(self.path, _line({"kind": "begin", "format": FORMAT, "version": VERSION}))
                    self.is_open = True
                _append(self.path, line)
            except OSError as error:
                raise AgentError(f"the run cannot be recorded in {self.path}: {error.strerror}") from None

    def _make(self) -> None:
        is_new = not self.path.exists()
        hold(self.path, self, create=True)
        self._is_held = True
        if is_new:
            _sync_folder(self.path.parent)


def copy_to_continue(source: Path, target: Path) -> None:
    """A record of ``source``'s runs for another run to begin in, readable for its owner alone. It is there whole, or
    not at all: what has no ``continued`` line would be gone on with as the last of those runs.

    Raises:
        OSError: it cannot be read or written.
    """
    part = part_of(target)
    data = source.read_bytes()
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    _append(part, _line({"kind": "continued"}))
    part.replace(target)
    _sync_folder(target.parent)


def part_of(record: Path) -> Path:
    """What a crash in ``copy_to_continue`` leaves."""
    return record.with_name(f"{record.name}.part")


def _portable(value: Any) -> Any:
    """As the sandbox will have it; what cannot enter it ends the run there, not here."""
    try:
        return decode(encode(value, "value"))
    except ValueNotPortable:
        return value


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, allow_nan=False).encode() + b"\n"


def _append(path: Path, data: bytes) -> None:
    """Adds a line, readable for its owner alone. What a crash left of a last line becomes a line of its own."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "r+b", 0) as file:
        if _is_torn(file):
            data = b"\n" + data
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def _is_torn(file: Any) -> bool:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return False
    file.seek(end - 1)
    return bool(file.read(1) != b"\n")


def _sync_folder(folder: Path) -> None:
    """So that the file's name is on the disk, too."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
