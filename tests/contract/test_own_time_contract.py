"""What every sandbox backend must do with tools that take their own time: it is not the code's."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import Config, Ending, Sandbox, State, Status, Tool
from tests.contract.conftest import DEADLINE, LONG_GRACE, add, in_process

pytestmark = pytest.mark.docker

Make = Callable[..., Sandbox]
TIMEOUT = 2.0  # seconds of the executions here
LONGER = 2.5  # that a tool takes


class Member(Tool):
    """Takes a while, as somebody who works does."""

    name = "member"
    description = "Works on it."
    inputs = {"seconds": {"type": "number", "description": "how long"}}  # noqa: RUF012
    output_type = "string"
    stops_clock = True

    def __init__(self, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.over = threading.Event()
        self.began = threading.Event()

    def forward(self, seconds: float) -> str:
        self.began.set()
        self.over.wait(seconds)
        return "done"


class AsyncMember(Member):
    name = "async_member"

    async def forward(self, seconds: float) -> str:  # type: ignore[override]
        await asyncio.sleep(seconds)
        return "done"


@pytest.fixture
def member() -> Iterator[Member]:
    made = Member()
    yield made
    made.over.set()


def test_a_tool_that_stops_the_clock_outlasts_the_executions_timeout(make: Make, member: Member) -> None:
    with make(tools=[member, AsyncMember()], timeout=TIMEOUT, tool_timeout=TIMEOUT / 4) as one:
        for name in ("member", "async_member"):
            execution = one.run_code(f"before = 1\nsaid = {name}({LONGER})\n(before, said)")
            assert (execution.status, execution.value) == (Status.OK, (1, "done"))
            assert execution.usage.wall_seconds > LONGER
        again = one.run_code(f"[member({LONGER / 2}) for _ in range(3)]")
        assert again.value == ["done"] * 3, "and so do several in a row"


@in_process
def test_the_clock_goes_on_when_the_tool_has_ended(make: Make, member: Member, config: Config) -> None:
    with make(tools=[member], timeout=TIMEOUT, config=replace(config, grace=LONG_GRACE)) as one:
        started = time.monotonic()
        execution = one.run_code(f"said = member({LONGER})\nwhile True: pass")
        assert (execution.status, execution.state) == (Status.TIMEOUT, State.KEPT)
        assert LONGER + TIMEOUT / 2 < time.monotonic() - started < LONGER + TIMEOUT + 5
        assert one.run_code("said").value == "done"


@in_process
def test_other_tools_do_not_stop_it(make: Make) -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(DEADLINE)

    with make(tools=[hang, add], timeout=TIMEOUT) as one:
        assert one.run_code("hang()").status is Status.TIMEOUT
    release.set()


@in_process
def test_a_timeout_of_its_own_holds(make: Make) -> None:
    member = Member(timeout=0.2)
    with make(tools=[member], timeout=TIMEOUT) as one:
        execution = one.run_code(f"member({DEADLINE})")
        assert execution.error is not None
        assert execution.error.name == "TimeoutError"
        assert execution.tool_calls[0].ending is Ending.TIMED_OUT
    member.over.set()


@in_process
def test_it_stands_still_until_the_last_of_several_has_ended(make: Make, member: Member) -> None:
    code = f"""
import threading
threads = [threading.Thread(target=member, args=({LONGER} * n,)) for n in (0.2, 1)]
for t in threads: t.start()
for t in threads: t.join()
"""
    with make(tools=[member], authorized_imports=["threading"], timeout=TIMEOUT) as one:
        assert one.run_code(code).status is Status.OK


@in_process
def test_an_interrupt_ends_it(make: Make, member: Member) -> None:
    with make(tools=[member], timeout=TIMEOUT) as one:
        interrupting = threading.Thread(target=lambda: (member.began.wait(DEADLINE), one.interrupt()))
        interrupting.start()
        execution = one.run_code(f"member({DEADLINE})")
        interrupting.join(DEADLINE)
        assert execution.status is Status.INTERRUPTED
        assert execution.tool_calls[0].ending is Ending.CANCELLED
        assert one.run_code("1 + 1").value == 2


def test_it_can_be_approved_first(make: Make, member: Member) -> None:
    def approve(request: Any) -> bool:
        time.sleep(TIMEOUT)  # thinks
        return True

    with make(tools=[member], timeout=TIMEOUT, approve=approve) as one:
        assert one.run_code(f"member({LONGER})").value == "done"
