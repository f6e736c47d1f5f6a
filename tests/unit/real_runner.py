"""The real runner program, and what a supervisor says to it. It has no workspace here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from executor_api.v1 import executor_pb2 as pb

import executor_image
from executor_image import frames
from executor_image.frames import EXECUTE_HEAD, FORK_BODY, FORKED_BODY, RESULT_HEAD, U32, pack

DEADLINE = 30.0
_PROGRAM = """
from executor_image.runner import workspace
workspace.WORKSPACE = "/nothing/here"
from executor_image.runner.__main__ import main
main()
"""
_SETUP = {"import_rules": ["*"], "tools": [], "env": {}, "final_answer": False, "checkpoint_files": 0}


class Runner:
    """One process of the fork tree, by its channel."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.output = b""
        self._reader = frames.FrameReader(frames.FROM_RUNNER)
        self._frames: list[tuple[int, bytes]] = []
        sock.settimeout(DEADLINE)

    def receive(self, *kinds: int) -> bytes:
        """The body of the next frame, which is of one of these types; output is kept."""
        while True:
            while not self._frames:
                data = self.sock.recv(1 << 16)
                assert data, "the runner has ended"
                self._frames += self._reader.feed(data)
            kind, body = self._frames.pop(0)
            if kind not in (frames.STDOUT, frames.STDERR):
                assert kind in kinds
                return body
            self.output += body

    def run(self, code: str) -> str:
        """An execution; the repr of its value."""
        self.sock.sendall(pack(frames.EXECUTE, EXECUTE_HEAD.pack(bytes(16), 1, 0), code.encode()))
        body = self.receive(frames.RESULT)
        _, outcome = RESULT_HEAD.unpack_from(body)
        said = pb.Outcome.FromString(body[RESULT_HEAD.size :])
        assert outcome == frames.OUTCOME_OK, said.error
        return said.text.decode()

    def fork(self) -> Runner:
        """A copy that waits."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(
                self.sock, [pack(frames.FORK, FORK_BODY.pack(1, frames.FORK_CHECKPOINT))], [theirs.fileno()]
            )
            _, pid, _ = FORKED_BODY.unpack(self.receive(frames.FORKED))
        assert pid > 0
        return Runner(ours)

    def wake(self) -> Runner:
        """This copy becomes a head."""
        self.sock.sendall(pack(frames.WAKE, U32.pack(0)))
        self.receive(frames.WOKEN)
        return self


@contextmanager
def real_runner() -> Iterator[Runner]:
    """A runner that has been set up; it and its copies end when their channels are closed."""
    ours, theirs = socket.socketpair()
    channel = theirs.fileno()

    def become() -> None:
        os.dup2(channel, 3, inheritable=True)

    program = subprocess.Popen(
        [sys.executable, "-B", "-X", "utf8", "-c", _PROGRAM],
        cwd=Path(executor_image.__file__).parents[1],
        pass_fds=[3, channel],
        preexec_fn=become,
    )
    theirs.close()
    runner = Runner(ours)
    try:
        ours.sendall(pack(frames.SETUP, json.dumps(_SETUP).encode()))
        runner.receive(frames.READY)
        yield runner
    finally:
        ours.close()
        with suppress(subprocess.TimeoutExpired):
            program.wait(DEADLINE)
        program.kill()
        program.wait()
