"""What every sandbox backend must do: tool calls given up in time, and told in the ledger."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator import AsyncSandbox, Config, Ending, Finished, Sandbox, State, Status, ToolCall, ToolOutcome
from orchestrator.errors import OutcomeUnknown, SandboxDied
from orchestrator.sandbox import Portal
from orchestrator.sandbox.engine import remove_container
from tests.contract.conftest import DEADLINE, LONG_GRACE, add, in_process
from tests.contract.tools import CAUGHT, RAW, Make, endings
from tests.serving import behind

pytestmark = pytest.mark.docker


# -------------------------------------------------------------------------------------------------------- the ledger


def test_every_call_is_in_the_ledger_with_its_end(make: Make) -> None:
    def fail() -> None:
        raise ValueError("the tool's own words")

    with make(tools=[add, fail], authorized_imports=["sys"]) as one:
        code = RAW + CAUGHT + "caught(add, 1), caught(fail), caught(raw, 'other', (), {}), caught(add, 1, 2, 3)"
        execution = one.run_code(code)
        assert execution.ok
        assert endings(execution) == [("add", "ok"), ("fail", "failed"), ("other", "refused"), ("add", "refused")]
        first, second, third, fourth = execution.tool_calls
        assert (second.error, third.refused_by, fourth.refused_by) == (
            "ValueError: the tool's own words",
            "not_granted",
            "arguments",
        )
        assert len(first.arguments_sha256) == 64
        assert first.arguments_bytes > 0
        assert first.result_bytes > 0
        assert execution.outcome_unknown == ()
        assert execution.usage.tool_calls == 4
        assert one.run_code("1").tool_calls == (), "each execution has its own"


def test_the_ledger_of_many_calls_at_once_has_each_of_them(make: Make) -> None:
    with make(tools=[add], authorized_imports=["threading"]) as one:
        execution = one.run_code(
            "import threading\n"
            "threads = [threading.Thread(target=add, args=(i,)) for i in range(30)]\n"
            "for t in threads: t.start()\n"
            "for t in threads: t.join()"
        )
        assert endings(execution) == [("add", "ok")] * 30
        assert len({call.id for call in execution.tool_calls}) == 30


def test_every_call_that_is_an_event_has_its_outcome_as_an_event(make: Make, release: threading.Event) -> None:
    def hang() -> None:
        release.wait(DEADLINE)

    async def collect() -> list[Any]:
        async with AsyncSandbox(tools=[hang, add]) as one:
            return [event async for event in one.stream("add(1)\nhang()", timeout=1.5)]

    events = asyncio.run(asyncio.wait_for(collect(), DEADLINE))
    called = [event.id for event in events if isinstance(event, ToolCall)]
    ended = [(event.id, event.ending) for event in events if isinstance(event, ToolOutcome)]
    assert ended == [(called[0], Ending.OK), (called[1], Ending.CANCELLED)]
    assert isinstance(events[-1], Finished)


# ------------------------------------------------------------------------------------------------ timeouts, the end


def test_a_tool_that_takes_too_long_is_a_timeout_that_the_code_can_catch(make: Make, release: threading.Event) -> None:
    ended = threading.Event()

    def hang() -> str:
        release.wait(DEADLINE)
        ended.set()
        return "late"

    with make(tools=[hang, add], tool_timeout=2.0) as one:
        execution = one.run_code("try:\n    hang()\nexcept TimeoutError as error:\n    told = str(error)\nadd(1), told")
        assert execution.ok
        assert execution.value[0] == 3
        assert execution.value[1].startswith("hang() had not ended after 2 s. Whether it took effect is not known")
        assert endings(execution) == [("hang", "timed_out"), ("add", "ok")]
        assert [call.name for call in execution.outcome_unknown] == ["hang"]
        release.set()
        assert ended.wait(DEADLINE)
        after = one.run_code("add(2)")
        assert (after.value, endings(after)) == (4, [("add", "ok")]), "the late result is nobody's"


def test_a_tool_slower_than_the_deadline_is_given_up_and_never_called_again(
    make: Make, config: Config, release: threading.Event
) -> None:
    """TOOL-07."""
    calls: list[int] = []

    def slow() -> None:
        calls.append(1)
        release.wait(DEADLINE)

    async def slow_too() -> None:
        calls.append(1)
        await asyncio.Event().wait()

    with make(tools=[slow, slow_too, add], config=replace(config, grace=LONG_GRACE)) as one:
        for name in ("slow", "slow_too"):
            execution = one.run_code(f"kept = 1\n{name}()", timeout=1.5)
            assert (execution.status, execution.state) == (Status.TIMEOUT, State.KEPT)
            assert endings(execution) == [(name, "cancelled")]
            (call,) = execution.outcome_unknown
            assert call.error == "Cancelled: the execution ended before it did; whether it took effect is not known"
            assert one.run_code("kept, add(1)").value == (1, 3)
        assert len(calls) == 2


def test_many_calls_that_are_cut_off_cost_no_state(make: Make) -> None:
    """The interrupt meets the wait for a result at any of its moments."""

    async def hang() -> None:
        await asyncio.Event().wait()

    with make(tools=[hang]) as one:
        one.run_code("cut = 0")
        for turn in range(150):
            execution = one.run_code("cut += 1\nhang()", timeout=0.03)
            assert execution.status is Status.TIMEOUT
            assert one.run_code("cut").state is State.KEPT, turn


@pytest.mark.parametrize(
    "code",
    [
        "await hang()",
        "import asyncio\nawait asyncio.gather(*(hang() for _ in range(4)))",
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor() as pool: pool.submit(lambda: hang()).result()",
        "import threading\nthread = threading.Thread(target=hang)\nthread.start()\ntry: thread.join()\n"
        "finally: thread.join()",
    ],
    ids=["awaited", "several", "in a pool", "in a thread"],
)
def test_calls_in_other_threads_are_given_up_at_an_interrupt(make: Make, config: Config, code: str) -> None:
    """Who is interrupted may wait for the end of these threads."""

    async def hang() -> None:
        await asyncio.Event().wait()

    imports = ["asyncio", "concurrent.futures", "threading"]
    with make(tools=[hang], authorized_imports=imports, config=replace(config, grace=LONG_GRACE)) as one:
        for turn in range(5):
            execution = one.run_code(f"kept = {turn}\n{code}", timeout=0.5)
            assert (execution.status, execution.state) == (Status.TIMEOUT, State.KEPT)
            assert one.run_code("kept").value == turn


def test_code_that_goes_on_without_waiting_for_its_tools_has_them_given_up(
    make: Make, release: threading.Event
) -> None:
    """Their results come to nobody, not to the next execution either."""
    started = threading.Event()

    def slow() -> str:
        started.set()
        release.wait(DEADLINE)
        return "late"

    def wait() -> bool:
        return started.wait(DEADLINE)

    with make(tools=[slow, wait, add], authorized_imports=["threading"]) as one:
        execution = one.run_code(
            "import threading\ngot = []\nthreading.Thread(target=lambda: got.append(slow())).start()\nwait()"
        )
        assert execution.value is True
        assert sorted(endings(execution)) == [("slow", "cancelled"), ("wait", "ok")]
        release.set()
        assert one.run_code("add(1), got").value == (3, [])


def test_a_sandbox_that_dies_while_a_tool_runs_tells_that_its_effect_is_unknown(
    make: Make, config: Config, release: threading.Event
) -> None:
    calls: list[int] = []

    def pull_the_plug() -> None:
        calls.append(1)
        remove_container(config, behind(one)._link.container.id)  # type: ignore[union-attr]
        release.wait(DEADLINE)  # the end of the container is told meanwhile

    with make(tools=[pull_the_plug, add]) as one:
        with pytest.raises(OutcomeUnknown, match="whether they took effect is not known") as caught:
            one.run_code("add(1)\npull_the_plug()")
        assert [(call.name, call.ending) for call in caught.value.tool_calls] == [
            ("add", Ending.OK),
            ("pull_the_plug", Ending.CANCELLED),
        ]
        assert isinstance(caught.value.__cause__, SandboxDied)
        one.reset()
        assert one.run_code("add(1)").value == 3
    assert calls == [1], "nothing is called a second time"


def test_a_sandbox_that_dies_after_its_tools_have_ended_tells_what_they_did(make: Make, config: Config) -> None:
    started = threading.Event()
    with make(tools=[add]) as one:
        container = behind(one)._link.container.id  # type: ignore[union-attr]
        killer = threading.Thread(target=lambda: started.wait(DEADLINE) and remove_container(config, container))
        killer.start()
        with pytest.raises(SandboxDied) as caught:
            one.run_code("add(1)\nprint('on')\nwhile True: pass", on_stdout=lambda _: started.set())
        killer.join(DEADLINE)
        assert not isinstance(caught.value, OutcomeUnknown)
        assert [(call.name, call.ending) for call in caught.value.tool_calls] == [("add", Ending.OK)]


# ---------------------------------------------------------------------------------------------------- the deadline


def write(sandbox: Sandbox, deadline: pb.Deadline) -> None:
    """Below the sandbox: a deadline at a moment of the test's own choice."""

    async def send() -> None:
        assert sandbox.asynchronous._link
        sandbox.asynchronous._link.channel.write(pb.HostMessage(deadline=deadline))

    Portal.run(send())


@in_process
def test_a_deadline_that_is_of_no_execution_is_dropped(make: Make) -> None:
    with make(timeout=DEADLINE) as one:
        one.run_code("1")
        for number in (0, 1, 2, 99):
            write(one, pb.Deadline(id=number, seconds=0))
        assert one.run_code("1").ok


@in_process
@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_deadline_that_can_be_none_ends_the_stream(make: Make, seconds: float) -> None:
    with make() as one:
        write(one, pb.Deadline(id=1, seconds=seconds))
        with pytest.raises(SandboxDied):
            one.run_code("1")


@in_process
def test_an_execution_that_is_being_stopped_is_not_given_more_time(make: Make, config: Config) -> None:
    """Not even while it clings to the grace."""
    clinging = "while True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: print('on', flush=True)"
    given: list[float] = []

    def give_more() -> None:
        write(one, pb.Deadline(id=1, seconds=10 * DEADLINE))
        given.append(time.monotonic())

    with make(timeout=1.5, config=replace(config, grace=6.0)) as one:
        execution = one.run_code(clinging, on_stdout=lambda _: threading.Thread(target=give_more).start())
        assert (execution.status, execution.state) == (Status.TIMEOUT, State.RESTORED)
        assert time.monotonic() - given[0] > 1.0, "it came too late to show anything"
