"""The background loop, and Ctrl-C at every point at which whoever waits for it can be interrupted."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from orchestrator import portal
from orchestrator.portal import Portal
from tests.waiting import eventually

# Where Ctrl-C is felt here: in this module, and in what schedules on a loop. Left out is whatever holds a lock: a trace
# can raise between a `with` and its lock, where Python lets no signal in.
FELT_IN = ("orchestrator/portal.py", "asyncio/base_events.py", "asyncio/selector_events.py")
HOLDS_A_LOCK = "_running_loop"
MOST_POINTS = 400  # lines that the calls below go through, and more
DEADLINE = 10.0


class CtrlC:
    """Raises KeyboardInterrupt in this thread at line ``point`` of those it goes through, once."""

    def __init__(self, point: int) -> None:
        self._left = point
        self.pressed = False

    def __enter__(self) -> CtrlC:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.endswith(FELT_IN) or frame.f_code.co_name == HOLDS_A_LOCK:
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.pressed = True
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


def points(act: Callable[[], object]) -> Iterator[int]:
    """Interrupts ``act`` at each of its lines; gives the number of each after it has ended as it must."""
    for point in range(1, MOST_POINTS):
        with CtrlC(point) as key:
            try:
                act()
            except KeyboardInterrupt:
                assert key.pressed
        if not key.pressed:
            return
        yield point
    raise AssertionError("there are more lines than were tried")


@pytest.fixture(autouse=True)
def the_loop_runs() -> None:
    Portal.run(asyncio.sleep(0))


# Before it has been handed over there is nobody yet who could close it; Python says so of every coroutine.
never_begun = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@never_begun
def test_wherever_ctrl_c_comes_the_coroutine_has_ended_before_it_is_heard() -> None:
    running: set[object] = set()

    async def work() -> None:
        mine = object()
        running.add(mine)
        try:
            await asyncio.sleep(0)
        finally:
            running.discard(mine)

    tried = 0
    for _ in points(lambda: Portal.run(work())):
        tried += 1
        assert running == set()
    assert tried > 10


@never_begun
def test_wherever_ctrl_c_comes_a_stream_is_closed() -> None:
    opened: list[int] = []
    closed: list[int] = []

    async def stream() -> AsyncGenerator[int, None]:
        opened.append(1)
        try:
            for number in range(3):
                await asyncio.sleep(0)
                yield number
        finally:
            closed.append(1)

    def read() -> None:
        events = Portal.iterate(stream())
        try:
            for _ in events:
                pass
        finally:
            events.close()  # type: ignore[attr-defined]

    tried = 0
    for _ in points(read):
        tried += 1
        eventually(
            lambda: len(opened) == len(closed), "a stream is open"
        )  # by the loop, if Ctrl-C came while it closed
    assert tried > 30


def test_ctrl_c_is_heard_of_a_stream_that_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portal, "CANCEL_DEADLINE", 0.01)
    stopping, released, closed = threading.Event(), asyncio.Event(), threading.Event()
    waiting = threading.get_ident()

    async def stream() -> AsyncGenerator[int, None]:
        try:
            yield 1
            signal.pthread_kill(waiting, signal.SIGINT)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopping.set()
            await released.wait()
            raise
        finally:
            closed.set()

    with pytest.raises(KeyboardInterrupt):
        for _ in Portal.iterate(stream()):
            pass
    assert stopping.is_set()
    assert not closed.is_set()

    async def release() -> None:
        released.set()

    Portal.run(release())
    assert closed.wait(DEADLINE)


def test_what_a_coroutine_gives_raises_or_is_cancelled_by_reaches_the_one_who_waits() -> None:
    async def raises() -> None:
        raise ValueError("no")

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def gives() -> int:
        return 3

    assert Portal.run(gives()) == 3
    with pytest.raises(ValueError, match="no"):
        Portal.run(raises())
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - of whichever module
        Portal.run(cancelled())
    assert type(caught.value).__name__ == "CancelledError"


def test_it_cannot_wait_for_itself() -> None:
    async def nested() -> None:
        Portal.run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="its own event loop"):
        Portal.run(nested())


def test_many_threads_wait_at_the_same_time() -> None:
    async def meet() -> str:
        barrier.append(1)
        while len(barrier) < 5:  # noqa: ASYNC110 - threads fill it
            await asyncio.sleep(0)
        return "met"

    barrier: list[int] = []
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda: outcomes.append(Portal.run(meet())), daemon=True) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert outcomes == ["met"] * 5
