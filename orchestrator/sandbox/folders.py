"""The folder of each session on the host: made whole or not at all, for nobody else, and never without its owner."""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import shutil
import socket
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config import Config
from orchestrator.errors import SandboxStartError, TooManySandboxes
from orchestrator.sandbox.lockdown import Owner, owner_is_alive
from orchestrator.stack.places import runtime_dir, session_of, unfinished_folder

TICKET = "ticket"  # in the folder of a session that may outlive its process: see ticket.py
SOCKET_NAME = "executor.sock"  # in the folder that the container sees
_LEAST_INODES, _LEAST_BYTES = 4, 16 << 10  # free ones, below which a file system is called full

# Those of this process and where their folders are or will be, from before their container is made to after it has been
# removed.
_sessions: dict[str, Path] = {}
_sessions_lock = threading.Lock()


def is_session_of_this_process(session: str) -> bool:
    """True from before its container is made until after it has been removed."""
    return session in _sessions


# ------------------------------------------------------------------------------------------------ the runtime folder


def own_runtime_dir(config: Config, *, make: bool = True) -> Path:
    """The folder of session folders: ours alone, in a place where nobody can put another in its stead.

    Args:
        config: says where it is.
        make: it is made if it is not there. What only looks, makes nothing.

    Raises:
        SandboxStartError: it belongs to somebody else, is open to others, or cannot be made.
    """
    path = runtime_dir(config.runtime_dir).absolute()
    try:
        for step in sorted({*path.parents, *path.resolve().parents}):
            if _others_may_change(step):
                raise SandboxStartError(
                    f"{path} is no place for sockets: others may change {step}; set runtime_dir to another folder"
                )
        if make:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not path.exists():
            return path
        found = path.lstat()
    except OSError as error:
        raise SandboxStartError(
            f"the folder of sockets {path} cannot be used: {error.strerror}; see the setting runtime_dir"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SandboxStartError(f"{path} must be a folder of this user's that nobody else may enter (mode 0700)")
    return path


def _others_may_change(step: Path) -> bool:
    """Somebody but root and this user may rename what is in there. In a sticky folder nobody may, as in /tmp."""
    try:
        found = step.lstat()
    except FileNotFoundError:  # it is made by us, then
        return False
    if found.st_uid not in (0, os.getuid()):
        return True
    if stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX:
        return False
    by_group = found.st_mode & 0o020 and found.st_gid not in (0, os.getgid())
    return bool(by_group or found.st_mode & 0o002)


# ------------------------------------------------------------------------------------------------- session folders


@dataclass(frozen=True, slots=True)
class SessionFolder:
    """``<runtime>/<session>/`` with ``owner`` and ``s/``, the folder that the container sees."""

    path: Path

    @classmethod
    def make(cls, base: Path, session: str, supervisor_uid: int, token: bytes, most: int) -> SessionFolder:
        """Makes it, with the one-time token in it, for the supervisor alone. Whoever makes it removes it.

        Raises:
            TooManySandboxes: this process has ``most`` of them.
            SandboxStartError: the file system refuses, because it is full for example.
        """
        _admit(session, base / session, most)
        unfinished: Path | None = None
        try:
            owner = str(Owner.me())
            unfinished = unfinished_folder(base, session, owner)
            _fill(unfinished, owner, supervisor_uid, token)
            unfinished.rename(base / session)
        except BaseException as error:
            if unfinished:
                shutil.rmtree(unfinished, ignore_errors=True)
            _sessions.pop(session, None)
            if isinstance(error, OSError):
                raise SandboxStartError(f"no session folder can be made in {base}: {error.strerror}") from None
            raise
        return cls(base / session)

    @classmethod
    def adopt(cls, base: Path, session: str, most: int) -> SessionFolder:
        """That of a process that has ended: it is this process's from now on.

        Raises:
            TooManySandboxes: this process has ``most`` of them.
            SandboxStartError: another process has it, or it cannot be written, for example because it is gone.
        """
        _admit(session, base / session, most)
        try:
            _take_over(base / session)
        except BaseException as error:
            _sessions.pop(session, None)
            if isinstance(error, OSError):
                raise SandboxStartError(f"the session's folder cannot be written: {error.strerror}") from None
            raise
        return cls(base / session)

    @property
    def sockets(self) -> Path:
        """The folder that is mounted into the container."""
        return self.path / "s"

    def is_on_full_disk(self) -> str:
        """That there is hardly room for a socket in it, for people; empty if there is."""
        try:
            found = os.statvfs(self.path)
        except OSError:  # it has been removed meanwhile
            return ""
        no_inodes = found.f_files and found.f_favail < _LEAST_INODES  # some file systems count none
        full = no_inodes or found.f_bavail * found.f_frsize < _LEAST_BYTES
        return f"the file system of {self.path.parent} is full" if full else ""

    def remove(self) -> None:
        """Removes it; a second time does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        _sessions.pop(self.path.name, None)


def _take_over(path: Path) -> None:
    """One process at a time looks whose it is, and writes that it is its own."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        me, owner = str(Owner.me()), owner_of(path)
        if owner != me and owner_is_alive(owner):
            raise SandboxStartError("another process goes on with this sandbox")
        put(path / "owner", me)
    finally:
        os.close(directory)


def put(path: Path, text: str) -> None:
    """Writes a small file whole or not at all, for this user alone."""
    new = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(text)
    new.rename(path)


def _admit(session: str, folder: Path, most: int) -> None:
    with _sessions_lock:
        if len(_sessions) >= most:
            raise TooManySandboxes(
                f"this process has {len(_sessions)} sandboxes, which is the most it may have; close some, or raise the "
                "setting max_sandboxes"
            )
        _sessions[session] = folder


def _fill(path: Path, owner: str, supervisor_uid: int, token: bytes) -> None:
    path.mkdir(mode=0o700)
    (path / "owner").write_text(owner)
    sockets = path / "s"
    sockets.mkdir(mode=0o700)
    fd = os.open(sockets / "token", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(token)
    if supervisor_uid != os.getuid():
        os.chown(sockets / "token", supervisor_uid, supervisor_uid)
        os.chown(sockets, supervisor_uid, supervisor_uid)


def _forget_after_fork() -> None:
    """What a forked process inherits is its parent's."""
    global _sessions_lock
    _sessions_lock = threading.Lock()
    _sessions.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


@atexit.register
def _remove_folders() -> None:
    # Containers end by themselves when this process's streams close; their folders do not.
    for path in list(_sessions.values()):
        if not (path / TICKET).exists():  # else its container waits for the next process
            shutil.rmtree(path, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------- leftovers


def remove_leftover_folders(base: Path) -> list[str]:
    """Removes the session folders in ``base`` that belong to nobody any more, and nothing else. Gives their names.

    One whose container waits for another process stays.
    """
    removed = []
    for path in entries(base):
        if found := session_of(path.name):
            session, owner = found
            if not _is_in_use(session, owner, path):
                shutil.rmtree(path, ignore_errors=True)
                if not path.exists():
                    removed.append(path.name)
    return removed


def entries(base: Path) -> list[Path]:
    """What is in the runtime folder; nothing if it is not there, or cannot be looked into."""
    try:
        return list(base.iterdir())
    except OSError:  # it cannot be looked into: then nothing is removed
        return []


def owner_of(path: Path) -> str:
    """Who a session's folder belongs to; empty if it does not say so.

    Raises:
        OSError: that cannot be told.
    """
    try:
        return (path / "owner").read_text("ascii")
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):  # one of ours has it as long as it has its name
        return ""


def _is_waited_in(path: Path) -> bool:
    """It has a ticket, and somebody listens at its socket: a container that has outlived its process.

    That is asked of nobody but the socket: an engine may be away, or be another one.
    """
    if not (path / TICKET).exists():
        return False
    directory = os.open(path / "s", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.stat(SOCKET_NAME, dir_fd=directory, follow_symlinks=False).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as looking:
            return looking.connect_ex(f"/proc/self/fd/{directory}/{SOCKET_NAME}") in (
                0,
                errno.EAGAIN,
                errno.EINPROGRESS,
            )
    except FileNotFoundError:
        return False
    finally:
        os.close(directory)


def _is_in_use(session: str, owner: str | None, path: Path) -> bool:
    try:
        owner = owner or owner_of(path)
        in_use = is_session_of_this_process(session) if owner == str(Owner.me()) else owner_is_alive(owner)
        return in_use or _is_waited_in(path)
    except OSError:  # that cannot be told: then it stays
        return True
