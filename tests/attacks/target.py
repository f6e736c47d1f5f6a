"""What is attacked, and what looks on: a sandbox in one column of the matrix, its neighbour, and the listeners."""

from __future__ import annotations

import base64
import dataclasses
import secrets
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator import Config, Execution, Limits, Sandbox, State, Status
from orchestrator.errors import CheckpointError, SandboxError
from tests.attacks import case as cases
from tests.attacks.case import Case, Cell
from tests.endings import OK

GRACE = 0.5  # seconds: a kill costs that much of the tests' time
DEADLINE = 20.0  # seconds for what takes milliseconds
LIMITS = Limits(memory="256m", disk="16m", inodes=512, output="64k")
GRANTED = ["numpy"]
NEIGHBOURS_OWN = "colorsys"  # what the neighbour may import besides
CLEAN = "clean"  # the checkpoint that each case begins in
KEPT = ["here", 1]


class Listeners:
    """On 127.0.0.1 and in the host's abstract namespace; nobody ever accepts, so who connects stays in the queue."""

    def __init__(self) -> None:
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.name = f"cellblock-canary-{secrets.token_hex(8)}"
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0{self.name}")
        self.abstract.listen()
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagrams.bind(f"\0{self.name}-datagrams")
        for one in self._all():
            one.setblocking(False)

    def _all(self) -> tuple[socket.socket, ...]:
        return self.tcp, self.udp, self.abstract, self.datagrams

    def reached(self) -> list[str]:
        """What has come to one of them since the last look."""
        found = [name for name in ("tcp", "abstract") if _accepted(getattr(self, name))]
        return found + [name for name in ("udp", "datagrams") if _received(getattr(self, name))]

    def close(self) -> None:
        for one in self._all():
            one.close()


def _accepted(listener: socket.socket) -> bool:
    came = False
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            came = True
    return came


def _received(listener: socket.socket) -> bool:
    came = False
    with suppress(BlockingIOError):
        while True:
            listener.recv(1)
            came = True
    return came


@dataclass(frozen=True, slots=True)
class Canaries:
    """What must not be seen anywhere: each by the name that the corpus gives it."""

    secret: bytes  # C_S: a file that only another user may read
    open: bytes  # a file that everybody may read, outside what the runner was given
    environment: bytes  # C_E: in the environment of the container's first process
    neighbour: bytes  # C_X: a variable and a file of the neighbour's
    host: bytes  # C_H: in a file of the host beside the folder that the container sees

    def seen(self, text: bytes, token: bytes, spared: str) -> list[str]:
        """The names of those that are in it, in any of the usual forms. ``spared``: the one that may be."""
        found = []
        for name in (part.name for part in dataclasses.fields(self)):
            if name != spared and any(form in text for form in _forms(getattr(self, name))):
                found.append(name)
        if any(form in text for form in (*_forms(token), repr(token)[2:-1].encode())):  # C_T
            found.append("token")
        return found


def _forms(value: bytes) -> Iterator[bytes]:
    yield value
    yield value[::-1]
    yield value.hex().encode()
    yield base64.b64encode(value).rstrip(b"=")[:-1]  # the last character depends on what follows


class Neighbour:
    """Another session on the same machine, which must notice nothing."""

    def __init__(self, sandbox: Sandbox, canary: bytes) -> None:
        self._sandbox = sandbox
        self._count = 0
        self.look(f"counter = 0\nsecret = {canary!r}\nopen('secret', 'wb').write(secret)")
        self._thread = ThreadPoolExecutor(1, "neighbour")

    def look(self, code: str) -> Any:
        """The value of code that must work there."""
        execution = self._sandbox.run_code(code, timeout=DEADLINE)
        assert (execution.status, execution.state) == OK, execution
        return execution.value

    def works(self) -> None:
        """A step of its own works, on its own variable."""
        self._count += 1
        assert self.look("counter += 1; counter") == self._count, "the neighbour's state was disturbed"

    def works_meanwhile(self) -> Future[None]:
        """The same at the same time as what follows."""
        return self._thread.submit(self.works)

    def close(self) -> None:
        self._thread.shutdown()
        self._sandbox.close()


@dataclass(eq=False)
class Target:
    """One column: a sandbox that lives for many cases, gone back to its clean state before each."""

    cell: Cell
    sandbox: Sandbox
    neighbour: Neighbour
    listeners: Listeners
    canaries: Canaries
    host_file: Path  # must never come to be
    log: Path  # the audit log of this target's sandboxes
    heard: list[bytes] = field(default_factory=list)  # everything that came out during one case
    ended: list[tuple[str, str]] = field(default_factory=list)  # how each step of the case was told to have ended
    tokens: set[bytes] = field(default_factory=set)  # C_T: of the containers of that case

    @classmethod
    def start(cls, cell: Cell, image: str, config: Config, **others: Any) -> Target:
        """A sandbox in that column."""
        settings = replace(
            config,
            image=image,
            grace=GRACE,
            limits=LIMITS,
            landlock="auto" if cell.landlock else "off",
            audit=str(others["log"]),
        )
        sandbox = Sandbox(config=settings, authorized_imports=GRANTED, final_answer=True)
        if not cell.policy:
            # The runner is told that everything may be imported; what the kernel lets it see stays that of the list.
            sandbox.asynchronous._settings["import_rules"] = ("*",)
        target = cls(cell, sandbox, **others)
        target.begin_anew()
        return target

    def go_back_to_clean(self) -> None:
        """To the state in which each case begins."""
        if self.sandbox.is_running:
            try:
                self.sandbox.rollback(CLEAN)
                return
            except CheckpointError:  # its container was replaced, or the code has killed it
                pass
        self.begin_anew()

    def begin_anew(self) -> None:
        """A fresh container with the clean state."""
        self.sandbox.reset()
        (self.folder / "canary").write_bytes(self.canaries.host)
        made = self.run(f"kept = {KEPT!r}")
        assert isinstance(made, Execution), made
        assert (made.status, made.state) == OK, made
        self.sandbox.checkpoint(CLEAN)

    @property
    def folder(self) -> Path:
        """Its container's folder on the host."""
        link = self.sandbox.asynchronous._link
        assert link is not None
        return link.container.folder.path

    @property
    def token(self) -> bytes:
        """C_T of its container."""
        link = self.sandbox.asynchronous._link
        return link.container.token if link else secrets.token_bytes(32)

    def run(self, code: str, timeout: float = DEADLINE) -> Execution | SandboxError:
        """One step; a failure of the sandbox is an outcome like others."""
        outcome: Execution | SandboxError
        was_running = self.sandbox.is_running
        try:
            outcome = self.sandbox.run_code(code, timeout=timeout)
            self.ended.append((outcome.status, outcome.state))
        except SandboxError as error:
            outcome = error
            if was_running:  # else nothing was begun
                self.ended.append((type(error).__name__, ""))
        self.heard += texts(outcome)
        return outcome

    def value(self, code: str) -> Any:
        """The value of a step that must work."""
        outcome = self.run(code)
        assert isinstance(outcome, Execution), outcome
        assert outcome.ok, outcome
        return outcome.value

    def filled_in(self, payload: str, canary: str) -> str:
        """The payload with what only this run knows."""
        return fill_in(payload, canary, self.listeners, self.host_file)


def fill_in(payload: str, canary: str, listeners: Listeners, host_file: Path) -> str:
    """Placeholders -> what they stand for."""
    values = {
        cases.CANARY: f"/canary/{canary}",
        cases.REACHED: cases.WORD_EXPRESSION,
        cases.PORT: str(listeners.tcp.getsockname()[1]),
        cases.UDP_PORT: str(listeners.udp.getsockname()[1]),
        cases.ABSTRACT: listeners.name,
        cases.HOST_FILE: str(host_file),
    }
    for placeholder, value in values.items():
        payload = payload.replace(placeholder, value)
    return payload


def texts(value: object) -> Iterator[bytes]:
    """Every text and all bytes in an outcome, however deep."""
    match value:
        case bytes():
            yield value
        case str():
            yield value.encode("utf-8", "surrogatepass")
        case Mapping():
            for key, item in value.items():
                yield from texts(key)
                yield from texts(item)
        case list() | tuple() | set() | frozenset():
            for item in value:
                yield from texts(item)
        case BaseException():
            yield f"{type(value).__name__}: {value}".encode("utf-8", "surrogatepass")
        case _ if dataclasses.is_dataclass(value):
            for part in dataclasses.fields(value):
                yield from texts(getattr(value, part.name))
        case _:
            yield repr(value).encode()


@dataclass(frozen=True)
class Attack:
    """A case that has been run in one column."""

    case: Case
    target: Target
    outcomes: tuple[Execution | SandboxError, ...]

    @property
    def cell(self) -> Cell:
        return self.target.cell

    @property
    def last(self) -> Execution:
        """The last step's execution."""
        outcome = self.outcomes[-1]
        assert isinstance(outcome, Execution), outcome
        return outcome

    @property
    def ending(self) -> tuple[Status, State] | type[Exception]:
        """How the last step ended."""
        outcome = self.outcomes[-1]
        return (outcome.status, outcome.state) if isinstance(outcome, Execution) else type(outcome)

    @property
    def text(self) -> str:
        """Everything that the last step gave."""
        return _joined(self.outcomes[-1])

    @property
    def whole_text(self) -> str:
        """Everything that all of its steps gave."""
        return "\n".join(map(_joined, self.outcomes))

    @property
    def reached(self) -> bool:
        """It has got to what it was after."""
        return self.wanted in self.text

    @property
    def wanted(self) -> str:
        """What shows that it has: the word, or what is in the canary."""
        if not self.case.canary:
            return cases.WORD
        canary: bytes = getattr(self.target.canaries, self.case.canary)
        return canary.decode()

    @property
    def is_lost(self) -> bool:
        """The state is not that of before, and it was said."""
        states = [o.state for o in self.outcomes if isinstance(o, Execution)]
        return State.LOST in states or not isinstance(self.outcomes[-1], Execution)


def _joined(outcome: object) -> str:
    return b"\n".join(texts(outcome)).decode("utf-8", "replace")
