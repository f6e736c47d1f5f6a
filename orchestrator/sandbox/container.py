"""The life of a container, and what a dead orchestrator left behind. The seam to docker.

Blocking calls to the engine run in a few threads of their own, so that nothing else can starve them.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import docker
import docker.errors
import requests

from orchestrator.config import Config
from orchestrator.errors import EngineError, ImageMissing, SandboxStartError
from orchestrator.sandbox import lockdown
from orchestrator.sandbox.channel import check_socket
from orchestrator.stack.engine import address, connect
from orchestrator.stack.places import runtime_dir

T = TypeVar("T")

# Uids of sessions: far above every range that distributions hand out (Debian, subuid, systemd's containers end below
# 1,879,048,192) and drawn at random, two of each pair: sessions of several orchestrators on one host do not meet.
_FIRST_UID, _UID_PAIRS = 1_900_000_000, 50_000_000
_ENGINE_TIMEOUT = 60  # seconds for one call to the engine
_ENGINE_THREADS = 4
_SOCKET_POLL = 0.003  # seconds between two looks for the socket; there is nothing else to wait on
_ALIVE_POLL = 0.25  # seconds between two looks whether the container still runs while it starts

_UNOWNED_SECONDS = 60.0  # from making a session folder to writing its owner: far less than this

_threads = ThreadPoolExecutor(_ENGINE_THREADS, thread_name_prefix="cellblock-engine")


async def in_engine_thread(call: Callable[..., T], *args: object) -> T:
    """Runs a blocking engine call."""
    try:
        running = asyncio.get_running_loop().run_in_executor(_threads, call, *args)
    except RuntimeError:  # the process is ending and its pools have been shut down: what is left is worth blocking for
        return call(*args)
    return await running


@functools.lru_cache(maxsize=8)
def _client(docker_host: str, _address: str) -> Any:  # docker has types for half of what it does
    return connect(docker_host).api


def engine(config: Config) -> Any:
    """The engine's client, one per address and process.

    Raises:
        EngineUnavailable, EnginePermission: it cannot be reached.
    """
    return _client(config.docker_host, address(config.docker_host))


@contextmanager
def engine_errors(config: Config) -> Iterator[None]:
    """docker's and requests' errors -> ours."""
    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise ImageMissing(f"{error.explanation}; run `make image`") from None
    except docker.errors.APIError as error:
        raise EngineError(f"the Docker engine refused: {error.explanation}") from None
    except (docker.errors.DockerException, requests.RequestException) as error:
        _client.cache_clear()
        connect(config.docker_host).close()  # says why, if the engine is gone
        raise EngineError(f"the Docker engine failed: {error}") from None


# ------------------------------------------------------------------------------------------------- session folders


def own_runtime_dir(config: Config) -> Path:
    """The folder of session folders: ours alone, never below /tmp.

    Raises:
        SandboxStartError: it belongs to somebody else or is open to others.
    """
    path = runtime_dir(config.runtime_dir)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SandboxStartError(f"{path} must be a folder of this user's that nobody else may enter (mode 0700)")
    return path


@dataclass(frozen=True, slots=True)
class SessionFolder:
    """``<runtime>/<session>/`` with ``owner`` and ``s/``, the folder that the container sees."""

    path: Path

    @classmethod
    def make(cls, base: Path, session: str, supervisor_uid: int, token: bytes) -> SessionFolder:
        """Makes it, with the one-time token in it, for the supervisor alone."""
        path = base / session
        path.mkdir(mode=0o700)
        _folders_of_this_process.add(path)
        (path / "owner").write_text(str(lockdown.Owner.me()))
        sockets = path / "s"
        sockets.mkdir(mode=0o700)
        fd = os.open(sockets / "token", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(token)
        if supervisor_uid != os.getuid():
            os.chown(sockets / "token", supervisor_uid, supervisor_uid)
            os.chown(sockets, supervisor_uid, supervisor_uid)
        return cls(path)

    @property
    def sockets(self) -> Path:
        """The folder that is mounted into the container."""
        return self.path / "s"

    def remove(self) -> None:
        """Removes it; a second time does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        _folders_of_this_process.discard(self.path)


_folders_of_this_process: set[Path] = set()


def _forget_after_fork() -> None:
    """What a forked process inherits is its parent's: the folders, the connections, and threads that it has not."""
    global _threads
    _threads = ThreadPoolExecutor(_ENGINE_THREADS, thread_name_prefix="cellblock-engine")
    _folders_of_this_process.clear()
    _client.cache_clear()


os.register_at_fork(after_in_child=_forget_after_fork)


@atexit.register
def _remove_folders() -> None:
    # Containers end by themselves when this process's streams close; their folders do not.
    for path in list(_folders_of_this_process):
        shutil.rmtree(path, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------- containers


@dataclass(frozen=True, slots=True)
class Container:
    """A started container whose supervisor has not been spoken to yet. Whoever started it removes it."""

    id: str
    session: lockdown.Session
    folder: SessionFolder
    token: bytes
    config: Config

    @classmethod
    async def start(cls, config: Config, image: str) -> Container:
        """Creates and starts one.

        Raises:
            ImageMissing, EngineError: the engine cannot.
        """
        first = _FIRST_UID + 2 * secrets.randbelow(_UID_PAIRS)
        supervisor = first if os.getuid() == 0 else os.getuid()  # who owns the socket folder may connect
        name, token = secrets.token_hex(8), secrets.token_bytes(32)
        folder = SessionFolder.make(own_runtime_dir(config), name, supervisor, token)
        session = lockdown.Session(
            id=name,
            image=image,
            socket_dir=str(folder.sockets),
            supervisor_uid=supervisor,
            runner_uid=first + 1,
            owner=str(lockdown.Owner.me()),
            created=time.time(),
            lease=config.lease,
            lifetime=config.max_lifetime,
        )
        try:
            return cls(await in_engine_thread(_create_and_start, config, session), session, folder, token, config)
        except BaseException:
            folder.remove()
            raise

    async def wait_for_socket(self, directory: int) -> None:
        """Until the supervisor listens in ``directory``, an open descriptor of the socket folder.

        Raises:
            SandboxStartError: it does not come, or the container ended.
        """
        next_look = time.monotonic() + _ALIVE_POLL
        while True:
            with suppress(FileNotFoundError):
                check_socket(directory, self.session.supervisor_uid)
                return
            if time.monotonic() > next_look:
                next_look = time.monotonic() + _ALIVE_POLL
                if not await in_engine_thread(_is_running, self.config, self.id):
                    raise SandboxStartError("the container ended while it started; 'cellblock doctor' says more")
            await asyncio.sleep(_SOCKET_POLL)

    async def remove(self) -> None:
        """Kills and removes it, and its folder. Does nothing where that has happened already."""
        try:
            await in_engine_thread(remove_container, self.config, self.id)
        finally:
            self.folder.remove()


def _create_and_start(config: Config, session: lockdown.Session) -> str:
    with engine_errors(config):
        client = engine(config)
        body = lockdown.create_body(session, config.limits)
        created: str = client.create_container_from_config(body, name=f"cellblock-{session.id}")["Id"]
        try:
            client.start(created)
        except BaseException:
            remove_container(config, created)
            raise
        return created


def _is_running(config: Config, container: str) -> bool:
    with engine_errors(config):
        try:
            return bool(engine(config).inspect_container(container)["State"]["Running"])
        except docker.errors.NotFound:
            return False


def remove_container(config: Config, container: str) -> None:
    """Kills and removes a container; returns when it is gone, also if somebody else removes it meanwhile."""
    client = engine(config)
    with engine_errors(config), suppress(docker.errors.NotFound):
        try:
            client.remove_container(container, force=True, v=True)
        except docker.errors.APIError as error:
            if error.status_code != 409:  # "removal is already in progress"
                raise
            client.wait(container, condition="removed", timeout=_ENGINE_TIMEOUT)


def engine_version(config: Config) -> str:
    """The engine's name and version, for people."""
    with engine_errors(config):
        return f"Docker {engine(config).version()['Version']}"


def image_id(config: Config, image: str) -> str:
    """The id behind an image's name.

    Raises:
        ImageMissing: it is not there.
    """
    with engine_errors(config):
        return str(engine(config).inspect_image(image)["Id"])


# -------------------------------------------------------------------------------------------------------- leftovers


@dataclass(frozen=True, slots=True)
class Listed:
    """A sandbox's container, as ``cellblock ps`` shows it."""

    id: str
    session: str
    owner: str
    owner_alive: bool
    age_seconds: float
    overdue: bool
    status: str


def list_containers(config: Config) -> list[Listed]:
    """Every sandbox's container on this engine, whoever made it."""
    with engine_errors(config):
        found = engine(config).containers(all=True, filters={"label": lockdown.LABEL_OWNER})
    now = time.time()
    return [_listed(entry["Id"], entry["Labels"], entry["Status"], now) for entry in found]


def _listed(container: str, labels: dict[str, str], status: str, now: float) -> Listed:
    owner = labels[lockdown.LABEL_OWNER]
    created = float(labels.get(lockdown.LABEL_CREATED, now))
    overdue = now > float(labels.get(lockdown.LABEL_DEADLINE, now))
    alive = lockdown.owner_is_alive(owner)
    return Listed(container, labels.get(lockdown.LABEL_SESSION, ""), owner, alive, now - created, overdue, status)


def collect_garbage(config: Config) -> list[str]:
    """Removes what dead owners left: containers, then session folders. Gives the names of what it removed."""
    removed = []
    for container in list_containers(config):
        if not container.owner_alive or container.overdue:
            remove_container(config, container.id)
            removed.append(f"container {container.id[:12]}")
    for folder in own_runtime_dir(config).iterdir():
        if not _in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(f"folder {folder.name}")
    return removed


def _in_use(folder: Path) -> bool:
    with suppress(OSError, UnicodeDecodeError):
        if owner := (folder / "owner").read_text():
            return lockdown.owner_is_alive(owner)
    try:  # no owner written: it is being made this moment, or its maker was killed in that moment
        return time.time() - folder.stat().st_mtime < _UNOWNED_SECONDS
    except OSError:  # gone
        return True
