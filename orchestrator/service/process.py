"""The service as a process of this machine: whether one runs, starting it in the background, ending it.

A service holds a lock on a file for as long as it lives, whatever ends it; the file has its process id. So nobody is
taken for a service that is none, and nothing else is ever signalled.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config import Config
from orchestrator.errors import ServiceError, ServiceUnavailable
from orchestrator.stack import places
from orchestrator.stack.commands import last_lines

START_SECONDS = 30.0  # for a service to answer
STOP_SECONDS = 40.0  # beyond the drain of the settings, to end what it has under way, and be gone
MAX_PATH = 100  # bytes of a unix socket's path; Linux takes 107
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ServicePlaces:
    """The files of one service.

    Attributes:
        socket: where it listens.
        lock: held while it runs; has its process id.
        log: JSON lines; see logs.py.
        output: what the process itself prints, such as why it could not begin.
        store: runs and events.
        records: the folder of what its agents record.
        audit: its audit log.
    """

    socket: Path
    lock: Path
    log: Path
    output: Path
    store: Path
    records: Path
    audit: Path

    @classmethod
    def of(cls, config: Config, store: Path | None = None) -> ServicePlaces:
        """Those of the settings.

        Args:
            config: says where the socket is, and the audit log, if it is not beside the store.
            store: as the settings of the service say; beside it are its log and its records. Default: the usual place.

        Raises:
            ServiceError: the socket's path is too long for one.
        """
        runtime = places.runtime_dir(config.runtime_dir)
        store = store or places.state_dir() / places.STORE
        state = store.parent
        socket = runtime / places.SERVICE_SOCKET
        if len(os.fsencode(socket)) > MAX_PATH:
            raise ServiceError(f"{socket} is too long for a socket's path (at most {MAX_PATH} bytes): set runtime_dir")
        return cls(
            socket=socket,
            lock=runtime / "orchestrator.lock",
            log=state / "service.log",
            output=state / "service.out",
            store=store,
            records=state / "records",
            audit=Path(config.audit or state / places.AUDIT).absolute(),
        )

    def make_folders(self) -> None:
        """Makes the folders, for this user alone."""
        for folder in (self.socket.parent, self.store.parent, self.log.parent, self.records):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """This process is the service, until the end of the block.

    Raises:
        ServiceError: another one is.
    """
    handle = _locked(lock)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _locked(lock: Path) -> int:
    """The file, open and locked. It is another one than was opened if its holder has removed it meanwhile."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(lock, handle):
                return handle
        except BlockingIOError:
            pid = _pid(handle)
            os.close(handle)
            raise ServiceError(f"a service runs already, process {pid or '?'}; `cellblock stop` ends it") from None
        os.close(handle)


def _is_still(lock: Path, handle: int) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def running(lock: Path) -> int | None:
    """The process id of the service that holds the lock; None if none does."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(handle)
    finally:
        os.close(handle)
    return None


def _pid(handle: int) -> int | None:
    text = os.pread(handle, 32, 0)
    return int(text) if text.isdigit() else None


def start(where: ServicePlaces, answers: Callable[[Path], bool], seconds: float = START_SECONDS) -> int:
    """Starts one in the background, and waits until it answers. Gives its process id.

    Args:
        where: its files.
        answers: asks the service at a socket whether it is ready.
        seconds: to wait for that.

    Raises:
        ServiceUnavailable: it ended, or does not answer; the message has what it printed.
    """
    where.make_folders()
    with os.fdopen(os.open(where.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.service"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # it outlives this program and its terminal
        )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if answers(where.socket):
            return process.pid
        time.sleep(_POLL_SECONDS)
    ended = process.poll() is not None
    if not ended:
        process.kill()
        process.wait()
    said = last_lines(where.output.read_bytes())
    raise ServiceUnavailable(f"the service {'ended' if ended else 'does not answer'}; its log: {where.log}\n{said}")


def stop(lock: Path, seconds: float = STOP_SECONDS) -> int | None:
    """Ends the service that holds the lock, in good order, or else for good. Gives its process id; None: none ran.

    Raises:
        ServiceError: it is somebody else's.
    """
    pid = running(lock)
    if pid is None:
        return None
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return pid
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _ends(process, pid, lock, number, seconds):
                return pid
    finally:
        os.close(process)
    raise ServiceError(f"the service, process {pid}, does not end")


def _ends(process: int, pid: int, lock: Path, number: signal.Signals, seconds: float) -> bool:
    """Signals that very process, if it still is the service, and waits for it to be none any more."""
    try:
        if running(lock) == pid:
            signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return True
    except PermissionError:
        raise ServiceError(f"the service, process {pid}, is another user's: end it as that user") from None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if running(lock) != pid:
            return True
        time.sleep(_POLL_SECONDS)
    return False
