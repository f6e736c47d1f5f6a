"""What has come and has not been read: in order, bounded in number and bytes, with one end."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.sandbox import inbox as module
from orchestrator.sandbox.inbox import Inbox
from tests.unit.loops import in_loop
from tests.unit.peers import settled


def test_messages_come_out_in_order_and_then_the_reason_of_the_end_every_time() -> None:
    async def main() -> None:
        inbox = Inbox()
        for message in (b"1", b"", b"3"):
            await inbox.put(message)
        inbox.end(ValueError("first"))
        inbox.end(ValueError("second"))
        assert [await inbox.get() for _ in range(3)] == [b"1", b"", b"3"]
        for _ in range(2):
            with pytest.raises(ValueError, match="first"):
                await inbox.get()

    in_loop(main())


@pytest.mark.parametrize(
    ("size", "most"), [(0, module.MAX_MESSAGES), (module.MAX_BYTES // 4, 4), (module.MAX_BYTES - 1, 2), (4 << 20, 1)]
)
def test_who_sends_has_to_wait_when_as_much_lies_there_as_may(size: int, most: int) -> None:
    async def main() -> None:
        inbox = Inbox()
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                sent += 1
                await inbox.put(bytes(size))

        sending = asyncio.create_task(send())
        await settled(50)
        assert sent == most
        await inbox.get()
        await settled(50)
        assert sent == most + 1
        sending.cancel()

    in_loop(main())


def test_a_read_that_is_cancelled_while_it_waits_loses_nothing() -> None:
    async def main() -> None:
        inbox = Inbox()
        waiting = asyncio.create_task(inbox.get())
        await settled()
        waiting.cancel()
        await inbox.put(b"kept")
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await inbox.get() == b"kept"

    in_loop(main())


def test_who_waits_is_told_of_the_end() -> None:
    async def main() -> None:
        inbox = Inbox()
        waiting = asyncio.create_task(inbox.get())
        await settled()
        assert inbox.is_empty
        assert inbox.failure is None
        inbox.end(ValueError("over"))
        with pytest.raises(ValueError, match="over"):
            await waiting
        assert inbox.failure is not None

    in_loop(main())
