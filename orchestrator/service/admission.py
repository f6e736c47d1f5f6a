"""Who works next: slots, a bounded queue before them, and turns among those who wait.

A slot that becomes free goes to whoever waits and holds the fewest; among equals to whoever was served longest ago.
So one token that asks for everything at once has the slots that nobody else wants, and no others.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable

from orchestrator.errors import ConfigError, Overloaded, ServiceUnavailable

MIN_RETRY, MAX_RETRY = 0.5, 60.0  # seconds; what is guessed of the future is not to be taken too seriously
MAX_NAMES = 1024  # whose last turn is remembered; the oldest is forgotten, who then is first, as it would be anyway
_NEWEST = 0.2  # the last slot's share in how long one is held

Waited = Callable[[float], object]


class Admission:
    """Slots of one kind, such as runs at the same time. On one event loop.

    The queue is shared as follows: a name may wait as often as places are still free. Alone it gets half of them; of
    two that ask for all, each gets a third; there is room for a newcomer.

    Args:
        slots: at the same time.
        queue: places to wait in.
        waited: is told for how many seconds each has waited that got a slot.

    Raises:
        ConfigError: there is no slot.
    """

    def __init__(self, slots: int, queue: int, waited: Waited = lambda seconds: None) -> None:
        if slots < 1 or queue < 0:
            raise ConfigError(f"{slots} slots and a queue of {queue}: there must be at least one slot")
        self._slots = slots
        self._queue = queue
        self._waited = waited
        self._held: defaultdict[str, int] = defaultdict(int)
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # of each name that waits, never empty
        self._turn = 0
        self._served: OrderedDict[str, int] = OrderedDict()  # the turn of the last time
        self._hold_seconds = MIN_RETRY  # how long a slot is held, about
        self._is_closed = False

    @property
    def held(self) -> int:
        """Slots in use."""
        return sum(self._held.values())

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    def enter(self, name: str, *, again: bool = False) -> Turn:
        """A slot for ``name``, or a place to wait for one, now: for who is answered before it waits.

        Whoever has it leaves it. With ``again`` it was let in before, by a process that has ended: there is room for
        it.

        Raises:
            Overloaded: too many wait already. ``retry_after`` is when a place may be free.
            ServiceUnavailable: ``close()`` was called.
        """
        if self._is_closed:
            raise _closed()
        waiter = asyncio.get_running_loop().create_future()
        if self.held < self._slots:  # then nobody waits
            self._grant(name)
            waiter.set_result(None)
        else:
            if not again:
                self._check_room(name)
            self._waiting.setdefault(name, deque()).append(waiter)
        return Turn(self, name, waiter)

    def close(self) -> None:
        """Lets nobody in any more, and sends away who waits. Slots that are held stay so."""
        self._is_closed = True
        for queue in tuple(self._waiting.values()):
            for waiter in queue:
                if not waiter.done():
                    waiter.set_exception(_closed())
        self._waiting.clear()

    def _check_room(self, name: str) -> None:
        free = self._queue - self.waiting
        if len(self._waiting.get(name, ())) >= free:
            raise Overloaded(f"too many are waiting ({self.waiting})", self._retry_after())

    def _retry_after(self) -> float:
        return min(max(self._hold_seconds * (self.waiting + 1) / self._slots, MIN_RETRY), MAX_RETRY)

    def _grant(self, name: str) -> None:
        self._turn += 1
        self._served[name] = self._turn
        self._served.move_to_end(name)
        if len(self._served) > MAX_NAMES:
            self._served.popitem(last=False)
        self._held[name] += 1

    def _over(self, name: str, seconds: float) -> None:
        self._hold_seconds += _NEWEST * (seconds - self._hold_seconds)
        self._give_back(name)

    def _give_back(self, name: str) -> None:
        self._held[name] -= 1
        if not self._held[name]:
            del self._held[name]
        while self._waiting and self.held < self._slots:
            self._serve()

    def _serve(self) -> None:
        name = min(self._waiting, key=lambda name: (self._held.get(name, 0), self._served.get(name, 0)))
        waiter = self._waiting[name].popleft()
        if not self._waiting[name]:
            del self._waiting[name]
        if not waiter.done():  # else it has been cancelled, and does not know yet
            self._grant(name)
            waiter.set_result(None)

    def _leave(self, name: str, waiter: asyncio.Future[None]) -> None:
        queue = self._waiting.get(name)
        if queue and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[name]


class Turn:
    """A place in the queue, and then a slot, until it is left. ``Admission.enter`` makes it."""

    def __init__(self, admission: Admission, name: str, waiter: asyncio.Future[None]) -> None:
        self._admission = admission
        self._name = name
        self._waiter: asyncio.Future[None] | None = waiter
        self._entered = self._begun = time.monotonic()

    async def come(self) -> None:
        """Waits for the slot.

        Raises:
            ServiceUnavailable: ``Admission.close()`` was called meanwhile.
        """
        assert self._waiter, "it has been left"
        await self._waiter
        self._begun = time.monotonic()
        self._admission._waited(self._begun - self._entered)

    def leave(self) -> None:
        """Somebody else may have it. A second time does nothing."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._admission._over(self._name, time.monotonic() - self._begun)
        else:
            self._admission._leave(self._name, waiter)


def _closed() -> ServiceUnavailable:
    return ServiceUnavailable("the service is stopping, and takes no new work")
