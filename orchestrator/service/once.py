"""Nothing is done twice: a request that comes again with its key gets the answer to the first one."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from orchestrator.errors import ConfigError, Overloaded

T = TypeVar("T")

# Answers that are kept of each owner: a client asks again for half a minute, in which thousands of requests can have
# come. What others ask for neither takes their place nor is kept waiting by them.
MAX_KEPT = 10_000
_KEY = re.compile(r"[\x21-\x7e]{1,64}")


def checked_key(key: str) -> str:
    """The key.

    Raises:
        ConfigError: it is none.
    """
    if not _KEY.fullmatch(key):
        raise ConfigError("a request needs a key of 1 to 64 printable ASCII characters without spaces")
    return key


@dataclass(frozen=True, slots=True)
class _Done:
    request: bytes  # digest
    task: asyncio.Task[Any]


class Once:
    """What has been begun, by whom it was asked for and by its key."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, OrderedDict[tuple[str, str], _Done]] = defaultdict(OrderedDict)

    async def do(
        self, owner: str, method: str, key: str, request: Message, work: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        """What ``work`` gives, or gave when this request came before; it goes on though nobody waits for it.

        Raises:
            ConfigError: the key is none, or was used for another request.
            Overloaded: too many such requests of this owner are under way.
        """
        name, kept = (method, checked_key(key)), self._kept[owner]
        digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
        done = kept.get(name)
        if done is None:
            _make_room(kept)
            done = kept[name] = _Done(digest, asyncio.create_task(work()))
            done.task.add_done_callback(_heard)
        elif done.request != digest:
            raise ConfigError("this key was used for another request")
        try:
            result: T = await asyncio.shield(done.task)
            return result
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told
            told, error.__traceback__ = _again(error), None  # or what is kept would hold on to the whole request
            raise told from told.__cause__

    def has_begun(self, owner: str, method: str, key: str) -> bool:
        """Such a request has come."""
        return (method, key) in self._kept[owner]

    async def close(self) -> None:
        """Stops what is under way."""
        tasks = [done.task for kept in self._kept.values() for done in kept.values() if not done.task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _make_room(kept: OrderedDict[tuple[str, str], _Done]) -> None:
    while len(kept) >= MAX_KEPT:
        oldest = next(iter(kept))
        if not kept[oldest].task.done():
            raise Overloaded("too many requests are under way", 1.0)
        del kept[oldest]


def _again(error: Exception) -> Exception:
    """The same error once more."""
    told = copy.copy(error)
    told.__cause__ = error.__cause__
    return told


def _heard(task: asyncio.Task[Any]) -> None:
    """Its failure is told to whoever asks; that nobody does is no fault."""
    if not task.cancelled():
        task.exception()
