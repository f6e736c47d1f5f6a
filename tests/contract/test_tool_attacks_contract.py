"""What every sandbox backend must do: tool calls within bounds. The names are those of the corpus, section 3.11."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import Limits, State, Status
from tests.contract.conftest import add
from tests.contract.tools import CAUGHT, RAW, Make, Spy, endings

pytestmark = pytest.mark.docker
# Below ``RAW``: a call in the name of any execution.
BELOW = """
import sys
calls, frames = sys.stdout._send.__self__._calls, sys.modules['executor_image.frames']
def call(nonce):
    calls._channel.send(frames.TOOL_CALL, frames.CALL_HEAD.pack(nonce, 1000, 3), b'spy', b'')
"""


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
    """TOOL-05: nobody sends one by accident, so the process that does is killed."""
    spy = Spy()
    with make(tools=[spy, add], authorized_imports=["sys"]) as one:
        one.run_code(BELOW + "old = calls.nonce")
        late = one.run_code(BELOW + "call(old)\nadd(1)")
        assert (late.status, late.state) == (Status.DIED, State.RESTORED)
        assert (spy.calls, endings(late)) == ([], [])
        there = one.run_code(BELOW + "call(calls.nonce)\ncalls._channel.receive_result(1000, lambda: True) is None")
        assert there.value is False
        assert len(spy.calls) == 1, "the same call is made in its own execution"


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
