"""Calls to the engine: the seam to docker.

They block, and may do so for as long as an engine hangs. So each runs in a thread of its own, which is left alone with
it when nobody waits any more, and does not hold up the end of the process.
"""

from __future__ import annotations

import _thread
import asyncio
import atexit
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import docker
import docker.errors
import requests

from orchestrator.config import Config
from orchestrator.errors import EngineError, ImageMissing
from orchestrator.stack.engine import address, connect, discard
from orchestrator.stack.image import checked_id

T = TypeVar("T")

_PATIENCE = 5.0  # seconds that whoever gives a container up waits for its removal; then that goes on without it
_LAST_SECONDS = 5.0  # that the end of the process waits for what is removed in the background; then gc has to do it

_removals: set[Future[Any]] = set()  # under way


# ---------------------------------------------------------------------------------------------------------- threads


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """Runs a blocking call. If this is cancelled, the call goes on by itself."""
    return await asyncio.wrap_future(begun(call, *args))


def begun(call: Callable[..., T], *args: object) -> Future[T]:
    """A blocking call, under way.

    Raises:
        EngineError: this process can have no more threads.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # it cannot be cancelled, only be waited for no longer

    def run() -> None:
        try:
            future.set_result(call(*args))
        except BaseException as error:  # noqa: BLE001 — it is the waiter's
            future.set_exception(error)

    try:
        # Thread.start() waits until the thread runs, and the event loop with it: on a busy machine 20 ms and more.
        _thread.start_new_thread(run, ())
    except RuntimeError as error:
        if threading.main_thread().is_alive():
            raise EngineError(f"the engine cannot be asked: {error}") from None
        run()  # the process is ending: what is left is worth blocking for
    return future


async def to_the_end(call: Callable[..., T], *args: object) -> T:
    """Runs a call that must not be left half done. Cancelled, it waits for that, but not for an engine that hangs."""
    waiting = _heard(_in_background(call, *args))
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        await asyncio.wait({waiting}, timeout=_PATIENCE)
        raise


async def give_up(call: Callable[..., object], *args: object) -> None:
    """Has something removed, and waits only so long for it; it goes on after that.

    Raises nothing: what it was given up for is what matters, and gc removes what is left.
    """
    with suppress(EngineError):
        await asyncio.wait({_heard(_in_background(call, *args))}, timeout=_PATIENCE)


async def within(seconds: float, call: Callable[..., object], *args: object) -> None:
    """Runs what is no reason to fail, or to wait longer than that for an engine that hangs."""
    with suppress(EngineError):
        await asyncio.wait({_heard(begun(call, *args))}, timeout=seconds)


def _in_background(call: Callable[..., T], *args: object) -> Future[T]:
    """Under way, and waited for at the end of the process."""
    removal = begun(call, *args)
    _removals.add(removal)
    removal.add_done_callback(_removals.discard)
    return removal


def _heard(call: Future[T]) -> asyncio.Future[T]:
    waiting = asyncio.wrap_future(call)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # also where nobody waits for it
    return waiting


@atexit.register
def _await_removals() -> None:
    # For as long as an engine that answers may take; one that hangs must not hold up the end.
    wait(list(_removals), timeout=_LAST_SECONDS)


def _forget_after_fork() -> None:
    """What a forked process inherits is its parent's: the connections, and what its threads do, which it has not."""
    _removals.clear()
    _client.cache_clear()


os.register_at_fork(after_in_child=_forget_after_fork)


# ------------------------------------------------------------------------------------------------------------ calls


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


def engine_version(config: Config) -> Mapping[str, Any]:
    """The engine's own answer to what it and its parts are."""
    with engine_errors(config):
        answer: Mapping[str, Any] = engine(config).version()
        return answer


def is_running(config: Config, container: str) -> bool:
    """False also where there is none of that name."""
    with engine_errors(config):
        try:
            return bool(engine(config).inspect_container(container)["State"]["Running"])
        except docker.errors.NotFound:
            return False


def remove_container(config: Config, container: str) -> bool:
    """Kills and removes a container; returns when it is gone, also if somebody else removes it meanwhile.

    False: there was none.
    """
    client = engine(config)
    with engine_errors(config):
        return discard(client, container)


@dataclass(frozen=True, slots=True)
class Image:
    """An executor image that the engine has."""

    id: str
    env: tuple[str, ...]  # variables that it brings along, for PID 1 alone


def find_image(config: Config, name: str) -> Image:
    """The image of that name.

    Raises:
        ImageMissing: it is not there.
        ImageChanged: what has the name is not the image that was built here.
    """
    with engine_errors(config):
        inspected = engine(config).inspect_image(name)
    return Image(checked_id(name, inspected), tuple((inspected.get("Config") or {}).get("Env") or ()))
