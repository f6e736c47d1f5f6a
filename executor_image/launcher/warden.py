"""The warden: one trusted process of the runner's uid, which signals the others for the supervisor.

The supervisor has another uid and no capability, so it cannot signal a runner; a process that runs user code cannot be
trusted to. The warden is a fork of the launcher, knows nothing, runs nothing of the user's, and obeys four commands.
User code may kill it, as it has its uid; the supervisor is its parent, sees that, and gives the container up.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from executor_image import frames

BRANCHES = "/branches"  # a folder of each branch's workspace
_GONE_SECONDS = 3.0  # for what was killed to be gone: a second for a few GiB; more for a fork bomb on a busy machine
# Seconds between two looks: most wait for less than a few of the first, and long ones must not take a core.
_LOOK_AGAIN, _LOOK_AGAIN_AT_LAST = 0.0005, 0.02
_READ_SIZE = 64 << 10


@dataclass(frozen=True)
class Found:
    """A process of this uid."""

    pid: int
    parent: int
    stopped: bool = False


def serve(channel: socket.socket) -> NoReturn:
    """Obeys until the supervisor is gone."""
    reader = frames.FrameReader(frames.TO_WARDEN)
    while data := channel.recv(_READ_SIZE):
        for kind, body in reader.feed(data):
            if kind == frames.SIGNAL:
                send_signal(*frames.SIGNAL_BODY.unpack(body))
            elif kind == frames.SWEEP:
                channel.sendall(frames.pack(frames.SWEPT, frames.SWEPT_BODY.pack(*sweep(**json.loads(body)))))
            elif kind == frames.CHECK:
                channel.sendall(frames.pack(frames.CHECKED))
            else:
                remove(*frames.U32.unpack(body))
                channel.sendall(frames.pack(frames.REMOVED))
    os._exit(0)


def send_signal(pid: int, number: int) -> None:
    """Signals one process; one that has ended already does not matter."""
    with suppress(ProcessLookupError, PermissionError):  # or its number is somebody else's by now
        os.kill(pid, number)


def sweep(keep: list[int], stopped: list[int], spare: list[int]) -> tuple[int, int]:
    """Kills every process of this uid but those of ``keep`` and ``stopped`` and the descendants of ``spare``.

    First everything is stopped, in one pass of the kernel's that a forking process cannot outrun: strays that left
    their session or were forked twice are found too. Then there is time to look. What stays goes on, except where it
    was stopped before. Gives how many were killed, and how many of them are still there.
    """
    with suppress(ProcessLookupError):  # there is nobody
        os.kill(-1, signal.SIGSTOP)
    found = _all_stopped()
    stays = {*keep, *stopped, *_descendants(found, set(spare))}
    doomed = {process.pid for process in found} - stays
    for pid in doomed:
        send_signal(pid, signal.SIGKILL)
    left = _wait_until_gone(doomed)
    for pid in stays - set(stopped):
        send_signal(pid, signal.SIGCONT)
    return len(doomed), len(left)


def _all_stopped() -> list[Found]:
    """Who is there once every signal has arrived.

    A fork that was under way hands the signal on to its child, which may appear after a first look.
    """
    found: list[Found] = []
    for _ in _looks():
        before, found = found, list(processes())
        if found == before and all(process.stopped or process.pid == 1 for process in found):  # that one hears nothing
            break
    return found


def _looks() -> Iterator[None]:
    """One for each look there is time for, at longer and longer intervals."""
    deadline, pause = time.monotonic() + _GONE_SECONDS, _LOOK_AGAIN
    yield
    while time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, _LOOK_AGAIN_AT_LAST)
        yield


def _descendants(found: Iterable[Found], roots: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for process in found:
        children.setdefault(process.parent, []).append(process.pid)
    below: set[int] = set()
    waiting = list(roots)
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in below:
                below.add(pid)
                waiting.append(pid)
    return below


def _wait_until_gone(doomed: set[int]) -> set[int]:
    left: set[int] = doomed
    for _ in _looks():
        left = doomed & {process.pid for process in processes()}
        if not left:
            break
    return left


def processes() -> Iterable[Found]:
    """Every process of this uid but this one. A zombie is none, unless only its first thread has ended."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError):  # it ended meanwhile
                if found := _process(int(name)):
                    yield found


def _process(pid: int) -> Found | None:
    fields = _status(str(pid))
    if int(fields[b"Uid"].split()[0]) != os.getuid():
        return None
    state = fields[b"State"].strip()[:1]
    if state in b"ZX":
        state = _state_of_a_thread(pid) if int(fields[b"Threads"]) > 1 else b""
    return Found(pid, int(fields[b"PPid"]), state in b"Tt") if state else None


def _state_of_a_thread(pid: int) -> bytes:
    """That of one that has not ended; nothing if all have."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(OSError):  # it ended meanwhile
            state = _status(f"{pid}/task/{thread}")[b"State"].strip()[:1]
            if state not in b"ZX":
                return state
    return b""


def _status(task: str) -> dict[bytes, bytes]:
    with open(f"/proc/{task}/status", "rb") as file:
        return dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)


def remove(branch: int) -> None:
    """Removes a branch's workspace. A process that is dying may still make a file: then once more."""
    root = f"{BRANCHES}/{branch}"
    for _ in range(2):
        for folder, names, _ in os.walk(root):
            for below in (os.path.join(folder, name) for name in names):
                with suppress(OSError):
                    if not os.path.islink(below):
                        os.chmod(below, 0o700)  # else a folder that lets nobody in would stay
        shutil.rmtree(root, ignore_errors=True)
