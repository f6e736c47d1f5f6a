"""One thread for a model's blocking calls, and the way of a reply from there to the event loop."""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from orchestrator.models.model import ModelDelta, TokenUsage
from orchestrator.models.stops import StopFilter

Result = TypeVar("Result")

_MAX_WAITING = 256  # pieces that nobody has taken yet: then the model waits, rather than fill the memory
_LOOK = 0.5  # seconds after which a model that waits looks whether anybody still listens
_LAST = 5.0  # seconds in which a generation must end when the process does; a token takes less

_Job = Callable[[], None]


class Output:
    """Where one reply goes. Text behind a stop sequence is dropped.

    ``text``, ``end`` and ``over`` are for the worker's thread.
    """

    def __init__(self, stop_sequences: Sequence[str], closing: threading.Event) -> None:
        self._filter = StopFilter(stop_sequences)
        self._closing = closing
        self._cancelled = False
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[ModelDelta | BaseException | None] = asyncio.Queue()
        self._room = threading.Semaphore(_MAX_WAITING)

    @property
    def over(self) -> bool:
        """Whether to stop writing: a stop sequence has come, or nobody wants more."""
        return self._filter.stopped or self._unheard

    def text(self, piece: str) -> None:
        """Hands on a further piece; waits while there is no room."""
        if certain := self._filter.feed(piece):
            self._send(ModelDelta(certain))

    def end(self, usage: TokenUsage) -> None:
        """Nothing more comes. To be called once."""
        if rest := self._filter.rest():
            self._send(ModelDelta(rest))
        self._send(ModelDelta(token_usage=usage))

    def run(self, write: Callable[[Output], None]) -> None:
        """Has ``write`` write the reply, and tells the event loop how that ended."""
        if self._cancelled:
            return
        try:
            write(self)
        except BaseException as error:  # noqa: BLE001 - raised where the reply is awaited
            self._post(error)
        else:
            self._post(None)

    async def next(self) -> ModelDelta | None:
        """The next piece; None after the last."""
        piece = await self._pieces.get()
        self._room.release()
        if isinstance(piece, BaseException):
            raise piece
        return piece

    def cancel(self) -> None:
        """Nobody wants more."""
        self._cancelled = True
        self._room.release()

    def _send(self, piece: ModelDelta) -> None:
        while not self._room.acquire(timeout=_LOOK):
            if self._unheard:
                return
        self._post(piece)

    @property
    def _unheard(self) -> bool:
        return self._cancelled or self._closing.is_set() or self._loop.is_closed()

    def _post(self, piece: ModelDelta | BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        except RuntimeError:  # the loop has been closed meanwhile
            self._cancelled = True


class Worker:
    """A thread that does one job after the other. It ends with its owner, and does not keep the process alive.

    Libraries of models want all their calls from one thread, and two generations at once would only slow each other
    down.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closing = threading.Event()
        # A daemon, because the interpreter waits for any other thread before it runs the exit handlers.
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True)
        self._thread.start()
        weakref.finalize(self, self._jobs.put, None).atexit = False
        _alive.add(self)

    def call(self, what: Callable[[], Result]) -> Result:
        """What ``what()`` gives in the thread. Blocks until then."""
        future: Future[Result] = Future()
        self._jobs.put(partial(_settle, future, what))
        return future.result()

    async def stream(
        self, write: Callable[[Output], None], stop_sequences: Sequence[str]
    ) -> AsyncGenerator[ModelDelta]:
        """The pieces that ``write`` writes in the thread, when its turn comes. Closing the generator cancels it."""
        output = Output(stop_sequences, self._closing)
        self._jobs.put(partial(output.run, write))
        try:
            while piece := await output.next():
                yield piece
        finally:
            output.cancel()

    def end(self) -> None:
        """Ends the generation under way, and waits a little for the thread. Nothing may be asked of it after that."""
        self._closing.set()
        self._jobs.put(None)
        self._thread.join(_LAST)


_alive: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    # A thread that is in the midst of native code when the interpreter goes away can take the process down with it.
    for worker in list(_alive):
        worker.end()


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while job := jobs.get():
        job()
        del job  # it holds the model


def _settle(future: Future[Result], what: Callable[[], Result]) -> None:
    try:
        future.set_result(what())
    except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
        future.set_exception(error)
