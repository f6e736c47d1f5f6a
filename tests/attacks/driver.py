"""Runs payloads where nothing guards, for the positive controls: in an unguarded container, or in a host process.

A program of its own, of the standard library alone: ``python3 driver.py jobs.json folder``. It forks for each job, in a
new folder below that one, and prints one line of JSON: what the payload wrote (values and tracebacks included), and how
it ended.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types

PATIENCE = 0.4  # seconds after which a payload counts as one that does not end, or does not hear the interrupt
AMPLE = 20.0  # seconds for one that does
MAX_TEXT = 100_000  # bytes that are looked at
TOGETHER = 8  # hanging payloads that run at the same time

ENDED, HEARD, IGNORED = "ended", "heard the interrupt", "ignored the interrupt"


def act(source: str, namespace: dict[str, object]) -> None:
    """As a sandbox does: the value of a last expression is shown."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<payload>", "exec"), namespace)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "<payload>", "eval"), namespace)
        if value is not None:
            print(repr(value))


def child(steps: list[str], output: int) -> None:
    """The forked process: all steps in one namespace, whatever they raise shown."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = open(1, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
    main = types.ModuleType("__main__")
    main.__builtins__ = builtins  # type: ignore[attr-defined]
    sys.modules["__main__"] = main
    for step in steps:
        try:
            act(step, main.__dict__)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()


class Job:
    """One payload that runs."""

    def __init__(self, job: dict[str, object], below: str) -> None:
        self.name = job["name"]
        self.folder = tempfile.mkdtemp(dir=below)
        self.output = tempfile.TemporaryFile(dir=below)  # noqa: SIM115
        self.hangs = bool(job["hangs"])
        self.after = PATIENCE if job["is_deaf"] else AMPLE
        self.pid = os.fork()
        if self.pid == 0:
            os.chdir(self.folder)
            child(job["steps"], self.output.fileno())  # type: ignore[arg-type]
            sys.exit(0)
        self.pidfd = os.pidfd_open(self.pid)
        self.began = time.monotonic()

    def ends_by(self, moment: float) -> bool:
        """True if it has ended by then."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, moment - time.monotonic()) * 1000))

    def finish(self) -> dict[str, object]:
        """Waits, interrupts, kills; what came of it."""
        ending = ENDED
        if not self.ends_by(self.began + (PATIENCE if self.hangs else AMPLE)):
            os.kill(self.pid, signal.SIGINT)
            ending = HEARD if self.ends_by(time.monotonic() + self.after) else IGNORED
        for kill in (os.kill, os.killpg):
            with contextlib.suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.pidfd)
        shutil.rmtree(self.folder, ignore_errors=True)
        text = self._written().decode("utf-8", "backslashreplace")
        by = os.WTERMSIG(status) if ending == ENDED and os.WIFSIGNALED(status) else 0
        return {"name": self.name, "text": text, "ending": f"signal {by}" if by else ending}

    def _written(self) -> bytes:
        """What it wrote, the middle left out of what is long."""
        size = self.output.seek(0, os.SEEK_END)
        self.output.seek(0)
        head = self.output.read(MAX_TEXT // 2)
        self.output.seek(max(self.output.tell(), size - MAX_TEXT // 2))
        return head + self.output.read()


def main() -> None:
    """The jobs that end one by one, then those that do not, several at a time."""
    path, below = sys.argv[1:]
    with open(path) as file:
        jobs = json.load(file)
    with contextlib.suppress(ImportError):  # so that it is loaded once and not in each fork
        import numpy  # noqa: F401
    for job in jobs:
        if not job["hangs"]:
            print(json.dumps(Job(job, below).finish()), flush=True)
    waiting = [job for job in jobs if job["hangs"]]
    while waiting:
        batch = [Job(job, below) for job in waiting[:TOGETHER]]
        del waiting[:TOGETHER]
        for running in batch:
            print(json.dumps(running.finish()), flush=True)


if __name__ == "__main__":
    main()
