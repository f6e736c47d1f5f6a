"""What every sandbox backend must do: tool calls within bounds, given up in time, approved, and told in the ledger.

The names of attacks are those of the corpus, section 3.11.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator import (
    AsyncSandbox,
    Config,
    Ending,
    ExecutionRequest,
    Finished,
    Limits,
    Sandbox,
    State,
    Status,
    ToolCall,
    ToolCallRequest,
    ToolOutcome,
    Verdict,
)
from orchestrator.errors import OutcomeUnknown, SandboxDied
from orchestrator.sandbox import Portal
from orchestrator.sandbox.engine import remove_container
from tests.contract.conftest import DEADLINE, add

pytestmark = pytest.mark.docker

Make = Callable[..., Sandbox]
# Below the tools' functions: any name can be called, as hostile code can.
RAW = "import sys\nraw = sys.stdout._send.__self__._calls.call\n"
CAUGHT = """
def caught(call, *args):
    try:
        return call(*args)
    except Exception as error:
        return f'{type(error).__name__}: {error}'
"""


class Spy:
    """A tool that counts its calls."""

    def __init__(self, name: str = "spy") -> None:
        self.name = name
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *args: Any) -> int:
        self.calls.append(args)
        return len(self.calls)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What hanging tools wait for; set at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def endings(execution: Any) -> list[tuple[str, str]]:
    return [(call.name, str(call.ending)) for call in execution.tool_calls]


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
            return [event async for event in one.stream("add(1)\nhang()", timeout=0.5)]

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

    with make(tools=[hang, add], tool_timeout=0.2) as one:
        execution = one.run_code("try:\n    hang()\nexcept TimeoutError as error:\n    told = str(error)\nadd(1), told")
        assert execution.ok
        assert execution.value[0] == 3
        assert execution.value[1].startswith("hang() had not ended after 0.2 s. Whether it took effect is not known")
        assert endings(execution) == [("hang", "timed_out"), ("add", "ok")]
        assert [call.name for call in execution.outcome_unknown] == ["hang"]
        release.set()
        assert ended.wait(DEADLINE)
        after = one.run_code("add(2)")
        assert (after.value, endings(after)) == (4, [("add", "ok")]), "the late result is nobody's"


def test_a_tool_slower_than_the_deadline_is_given_up_and_never_called_again(
    make: Make, release: threading.Event
) -> None:
    """TOOL-07."""
    calls: list[int] = []

    def slow() -> None:
        calls.append(1)
        release.wait(DEADLINE)

    async def slow_too() -> None:
        calls.append(1)
        await asyncio.Event().wait()

    with make(tools=[slow, slow_too, add]) as one:
        for name in ("slow", "slow_too"):
            execution = one.run_code(f"kept = 1\n{name}()", timeout=0.5)
            assert (execution.status, execution.state) == (Status.TIMEOUT, State.KEPT)
            assert endings(execution) == [(name, "cancelled")]
            (call,) = execution.outcome_unknown
            assert call.error == "Cancelled: the execution ended before it did; whether it took effect is not known"
            assert one.run_code("kept, add(1)").value == (1, 3)
        assert len(calls) == 2


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


def test_a_sandbox_that_dies_while_a_tool_runs_tells_that_its_effect_is_unknown(make: Make, config: Config) -> None:
    calls: list[int] = []

    def pull_the_plug() -> None:
        calls.append(1)
        remove_container(config, one.asynchronous._link.container.id)  # type: ignore[union-attr]
        threading.Event().wait(2)  # the end of the container is told meanwhile

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
        container = one.asynchronous._link.container.id  # type: ignore[union-attr]
        killer = threading.Thread(target=lambda: started.wait(DEADLINE) and remove_container(config, container))
        killer.start()
        with pytest.raises(SandboxDied) as caught:
            one.run_code("add(1)\nprint('on')\nwhile True: pass", on_stdout=lambda _: started.set())
        killer.join(DEADLINE)
        assert not isinstance(caught.value, OutcomeUnknown)
        assert [(call.name, call.ending) for call in caught.value.tool_calls] == [("add", Ending.OK)]


# --------------------------------------------------------------------------------------------------------- attacks


def test_only_exactly_the_granted_names_can_be_called(make: Make) -> None:
    """TOOL-01."""
    spy, other = Spy("search"), Spy("delete_all")
    names = ["delete_all", "__class__", "_private", "Search", "search ", "ｓearch", "sea\u0440ch", "", "search\0"]
    with make(tools=[spy], authorized_imports=["sys"]) as one, make(tools=[other]):
        execution = one.run_code(RAW + CAUGHT + f"[caught(raw, name, (), {{}}) for name in {names!r}]")
        assert all("is not granted to this sandbox; granted: search" in told for told in execution.value)
        assert {call.refused_by for call in execution.tool_calls} == {"not_granted"}
        assert (spy.calls, other.calls) == ([], [])
        assert one.run_code("search()").value == 1


def test_a_loop_of_calls_ends_at_the_budget(make: Make) -> None:
    """TOOL-02."""
    spy = Spy()
    with make(tools=[spy], limits=Limits(tool_calls=20)) as one:
        execution = one.run_code("for _ in range(10**5): spy()")
        assert execution.error is not None
        assert (execution.error.name, execution.error.value) == (
            "PermissionError",
            "this execution has used up its 20 tool calls",
        )
        many = one.run_code(CAUGHT + "len([caught(spy) for _ in range(3000)])")
        assert (many.value, many.usage.tool_calls) == (3000, 3000)
        assert len(many.tool_calls) == 20 + 1000, "calls that are refused are not written down for ever"
    assert len(spy.calls) == 40


def test_a_flood_of_bytes_ends_at_the_budget(make: Make) -> None:
    """TOOL-02, TOOL-08."""
    spy = Spy()

    def give(size: int) -> bytes:
        return bytes(size)

    with make(tools=[spy, give], limits=Limits(tool_bytes="100k")) as one:
        execution = one.run_code(CAUGHT + "[caught(spy, b'x' * 30000) for _ in range(5)]")
        assert execution.value[:3] == [1, 2, 3]
        assert all("PermissionError: spy(): 30,0" in told for told in execution.value[3:])
        execution = one.run_code(CAUGHT + "[type(caught(give, 60000)) is str for _ in range(2)]")
        assert execution.value == [False, True]
        assert endings(execution) == [("give", "ok"), ("give", "failed")]
        assert one.run_code("len(give(60000))").value == 60000, "the next execution has its own"
    assert len(spy.calls) == 3


def test_calls_from_a_repr_are_calls_like_others(make: Make) -> None:
    """TOOL-04: no deadlock."""
    spy = Spy()
    with make(tools=[spy]) as one:
        execution = one.run_code("class Talks:\n    def __repr__(self): return f'spy said {spy()}'\nTalks()")
        assert execution.text == "spy said 1"
        assert set(endings(execution)) == {("spy", "ok")}


def test_a_tool_may_use_another_sandbox_with_the_same_tool(make: Make) -> None:
    """TOOL-04: tool, sandbox, tool; the same sandbox is refused in words."""

    def ask(depth: int) -> str:
        target = inner if depth else outer
        return f"{depth} {target.run_code(f'ask({depth - 1})' if depth else '1').value}"

    with make(tools=[ask]) as outer, make(tools=[ask]) as inner:
        execution = outer.run_code("ask(1)")
        assert execution.value == "1 None"  # inside, ask(0) was refused: it would have used the outer one
        assert endings(execution) == [("ask", "ok")]
        assert outer.run_code("1 + 1").value == 2


def test_a_call_after_the_end_of_its_execution_is_not_made(make: Make) -> None:
    """TOOL-05."""
    spy = Spy()
    with make(tools=[spy, add], authorized_imports=["sys", "threading", "time"]) as one:
        one.run_code(
            "import sys, threading, time\n"
            "calls = sys.stdout._send.__self__._calls\n"
            "old, told = calls.nonce, []\n"
            "def late():\n"
            "    while calls.nonce == old: time.sleep(0.001)\n"
            "    while True:\n"
            "        try: told.append(spy())\n"
            "        except Exception as error: told.append(f'{type(error).__name__}: {error}'); return\n"
            "thread = threading.Thread(target=late)\n"
            "thread.start()"
        )
        after = one.run_code("thread.join(5); told, add(1)")
        assert after.value[1] == 3
        made = [call for call in after.tool_calls if call.name == "spy" and call.ending is Ending.OK]
        assert len(spy.calls) == len(made), "what is made is in the ledger of the execution in which it was made"


def test_a_closure_of_an_earlier_execution_calls_in_the_present_one(make: Make) -> None:
    """TOOL-05."""
    spy = Spy()
    with make(tools=[spy]) as one:
        first = one.run_code("kept = lambda: spy()")
        second = one.run_code("kept()")
        assert (first.tool_calls, endings(second)) == ((), [("spy", "ok")])


def test_what_a_tool_gives_and_raises_is_bounded_and_secrets_can_be_hidden(make: Make) -> None:
    """TOOL-08."""

    class Hostile(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError("canary-of-the-host")

    class Secretive:
        name = "secretive"
        expose_errors = False

        def __call__(self) -> Any:
            return Hostile(a=1)

    def large() -> bytes:
        return bytes(100 << 20)

    with make(tools=[Secretive(), large]) as one:
        execution = one.run_code(CAUGHT + "caught(secretive), caught(large)")
        assert execution.value[0] == "ToolError: secretive failed"
        assert "can travel" in execution.value[1]
        assert "canary" not in repr(execution)


def test_the_grant_of_one_session_is_none_in_another(make: Make) -> None:
    """TOOL-10."""
    mine, theirs = Spy("mine"), Spy("theirs")
    with make(tools=[mine], authorized_imports=["sys"]) as one, make(tools=[theirs]) as other:
        execution = one.run_code(RAW + CAUGHT + "caught(raw, 'theirs', (), {})")
        assert "tool 'theirs' is not granted" in execution.value
        assert other.run_code("theirs()").value == 1
    assert (mine.calls, len(theirs.calls)) == ([], 1)


def test_arguments_arrive_as_they_were_given(make: Make) -> None:
    """TOOL-11."""
    spy = Spy()
    nasty = (
        "; rm -rf /",
        "$(id)",
        "' OR 1=1 --",
        "../../etc/passwd",
        "\0\x1b[2J",
        b"\x00\xff",
        1.5,
        None,
        [("a", {1})],
    )
    with make(tools=[spy]) as one:
        assert one.run_code(f"spy(*{nasty!r})").ok
    assert spy.calls == [nasty]


# ------------------------------------------------------------------------------------------------------- approvers


def test_one_approver_is_asked_about_code_and_calls(make: Make) -> None:
    asked: list[Any] = []

    def approve(request: Any) -> Any:
        asked.append(request)
        match request:
            case ExecutionRequest(code):
                return "danger" not in code
            case ToolCallRequest("spy", {"args": args}):
                return Verdict("x" not in args, "not with x")
        return False

    spy = Spy()
    with make(tools=[spy], approve=approve, timeout=7) as one:
        execution = one.run_code(CAUGHT + "y = caught(spy, 'a'), caught(spy, 'x'); y")
        assert execution.value == (1, "PermissionError: the call of spy() was not approved: not with x")
        assert [(call.ending, call.refused_by) for call in execution.tool_calls] == [
            (Ending.OK, ""),
            (Ending.REFUSED, "approver"),
        ]
        refused = one.run_code("y = 'danger'")
        assert (refused.status, refused.state, refused.execution_count) == (Status.REFUSED, State.KEPT, 0)
        assert refused.error is not None
        assert refused.error.name == "ExecutionRefused"
        assert one.run_code("y[0]").value == 1, "nothing was run"
    assert asked[0].timeout == 7
    assert asked[1] == ToolCallRequest("spy", {"args": ("a",)}, 1)
    assert spy.calls == [("a",)]


def test_an_approver_may_be_a_coroutine_and_may_fail(make: Make) -> None:
    async def approve(request: Any) -> bool:
        await asyncio.sleep(0)
        if isinstance(request, ToolCallRequest):
            raise RuntimeError("canary-of-the-host")
        return True

    spy = Spy()
    with make(tools=[spy], approve=approve) as one:
        execution = one.run_code(CAUGHT + "caught(spy)")
        assert execution.value == (
            "PermissionError: the call of spy() was not approved, as the approver failed (it raised RuntimeError)"
        )
        assert "canary" not in repr(execution)
    assert spy.calls == []


def test_the_time_for_an_answer_is_not_the_codes(make: Make) -> None:
    """Somebody who thinks longer than the code may run does not have it stopped; code that runs on is stopped."""

    async def approve(request: Any) -> bool:
        if isinstance(request, ToolCallRequest):
            await asyncio.sleep(1.5)  # thinking is what is tested
        return True

    spy = Spy()
    with make(tools=[spy], approve=approve, timeout=0.8) as one:
        execution = one.run_code("spy()\nspy()")
        assert (execution.status, execution.value, len(spy.calls)) == (Status.OK, 2, 2)
        assert one.run_code("spy()\nwhile True: pass").status is Status.TIMEOUT


def test_an_execution_ends_though_somebody_thinks_for_ever(make: Make, config: Config) -> None:
    async def approve(request: Any) -> bool:
        if isinstance(request, ToolCallRequest):
            await asyncio.Event().wait()
        return True

    spy = Spy()
    patient = replace(config, approval_timeout=1.0)
    with make(tools=[spy], approve=approve, timeout=0.5, config=patient) as one:
        execution = one.run_code("while True:\n    try: spy()\n    except PermissionError: pass")
        assert execution.status is Status.TIMEOUT
        assert {call.ending for call in execution.tool_calls} == {Ending.REFUSED}
        assert one.run_code("1").value == 1
    assert spy.calls == []


def test_a_branch_asks_the_same_approver(make: Make) -> None:
    asked: list[str] = []

    def approve(request: Any) -> bool:
        asked.append(request.code)
        return True

    with make(approve=approve) as one:
        one.run_code("a = 1")
        with one.fork() as branch:
            assert branch.run_code("a").value == 1
    assert asked == ["a = 1", "a"]


def test_interrupting_while_code_waits_for_its_approval_refuses_it(make: Make, release: threading.Event) -> None:
    asking = threading.Event()

    def approve(request: Any) -> bool:
        asking.set()
        return release.wait(DEADLINE)

    with make(approve=approve) as one:
        interrupting = threading.Thread(target=lambda: asking.wait(DEADLINE) and one.interrupt())
        interrupting.start()
        execution = one.run_code("1")
        interrupting.join(DEADLINE)
        assert execution.status is Status.REFUSED
        assert execution.error is not None
        assert "interrupted" in execution.error.value


# ---------------------------------------------------------------------------------------------------- the deadline


def write(sandbox: Sandbox, deadline: pb.Deadline) -> None:
    """Below the sandbox: a deadline at a moment of the test's own choice."""

    async def send() -> None:
        assert sandbox.asynchronous._link
        sandbox.asynchronous._link.channel.write(pb.HostMessage(deadline=deadline))

    Portal.run(send())


def test_a_deadline_that_is_of_no_execution_is_dropped(make: Make) -> None:
    with make(timeout=DEADLINE) as one:
        one.run_code("1")
        for number in (0, 1, 2, 99):
            write(one, pb.Deadline(id=number, seconds=0))
        assert one.run_code("1").ok


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_deadline_that_can_be_none_ends_the_stream(make: Make, seconds: float) -> None:
    with make() as one:
        write(one, pb.Deadline(id=1, seconds=seconds))
        with pytest.raises(SandboxDied):
            one.run_code("1")


def test_an_execution_that_is_being_stopped_is_not_given_more_time(make: Make, config: Config) -> None:
    """Not even while it clings to the grace."""
    clinging = "while True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: print('on', flush=True)"
    with make(timeout=0.3, config=replace(config, grace=0.5)) as one:
        execution = one.run_code(clinging, on_stdout=lambda _: threading.Thread(target=give_more, args=(one,)).start())
        assert (execution.status, execution.state) == (Status.TIMEOUT, State.RESTORED)


def give_more(sandbox: Sandbox) -> None:
    write(sandbox, pb.Deadline(id=1, seconds=10 * DEADLINE))
