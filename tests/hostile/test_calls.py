"""TOOL-* as a hostile executor would do it: calls that are forged, repeated, late, huge, or too many."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import ProtocolViolation, SandboxDied
from orchestrator.events import ToolCall, ToolOutcome
from orchestrator.sandbox import AsyncSandbox, channel
from tests.hostile.lies import LYING_VALUES
from tests.hostile.oracle import in_stage, refused
from tests.hostile.peer import Peer, Script, called, finished
from tests.hostile.stage import Stage

CALLED: list[tuple[Any, ...]] = []


def add(*args: Any, **kwargs: Any) -> int:
    """The only tool that is granted; writes down that it was called."""
    CALLED.append((*args, *kwargs.items()))
    return len(args)


@pytest.fixture(autouse=True)
def _nothing_called() -> None:
    CALLED.clear()


def calls(*messages: pb.ExecutorMessage, end: bool = True) -> Script:
    """Answers the first code with these calls; takes their results, if there are to be any, and ends."""

    async def script(peer: Peer) -> None:
        await peer.executing()
        for message in messages:
            await peer.say(message)
        for _ in messages if end else ():
            await peer.hear()
        if end:
            await peer.say(finished(1))
        while True:
            await peer.hear()

    return script


def arguments(*values: Any) -> bytes:
    positional = pb.ValueList(items=[pb.Value(integer=value) for value in values])
    return pb.Arguments(positional=positional).SerializeToString()


def outcomes(script: Script, *tools: Callable[..., Any]) -> list[Any]:
    """The events of an execution that is answered so."""

    async def play(scene: Stage) -> list[Any]:
        async with scene.sandbox(script, tools=tools or (add,)) as sandbox:
            return [event async for event in sandbox.stream("1")]

    events: list[Any] = in_stage(play)
    return events


# ------------------------------------------------------------------------------------------------- what is not granted

NAMES = [
    b"",
    b"Add",
    b"add ",
    b"add\0",
    b"__class__",
    b"add.__call__",
    "ａdd".encode(),
    "аdd".encode(),
    b"\xff",
    b"\x1b[2J",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_tool_01_only_the_very_names_that_were_granted_are_called(name: bytes) -> None:
    (outcome, _) = outcomes(calls(called(1, 1, name, arguments(1))))
    assert isinstance(outcome, ToolOutcome)
    assert "PermissionError: tool " in (outcome.error or "")
    assert (outcome.error or "").isprintable()
    assert CALLED == []


def test_tool_01_a_name_over_its_bound_is_a_violation() -> None:
    refused(calls(called(1, 1, b"x" * 257), end=False), error=ProtocolViolation, tools=[add])
    assert CALLED == []


def test_tool_01_arguments_of_a_call_that_is_refused_are_not_looked_at() -> None:
    (outcome, _) = outcomes(calls(called(1, 1, b"other", LYING_VALUES["SER-07 wide"])))
    assert "not granted" in outcome.error


# ------------------------------------------------------------------------------------------------ what is out of order

FORGED: dict[str, list[pb.ExecutorMessage]] = {
    "of another execution": [called(2)],
    "of execution 0": [called(0)],
    "with the number 0": [called(1, 0)],
    "with one number twice": [called(1, 1, b"other"), called(1, 1, b"other")],
    "after the end": [finished(1), called(1)],
}


@pytest.mark.parametrize("how", FORGED)
def test_tool_05_a_call_that_is_out_of_order_is_a_violation_and_no_tool_runs(how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.executing()
        for message in FORGED[how]:
            await peer.say(message)
        while True:
            await peer.hear()

    async def twice(sandbox: AsyncSandbox) -> None:
        await sandbox.run_code("1")
        link = sandbox._link
        assert link
        while link.channel._inbox.is_empty:  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0)
        await sandbox.run_code("2")

    refused(script, twice, ProtocolViolation, tools=[add])
    assert CALLED == []


def test_tool_05_a_tool_ends_with_the_execution_that_called_it() -> None:
    began, ended = threading.Event(), threading.Event()

    async def hangs() -> None:
        """Never ends."""
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def script(peer: Peer) -> None:
        await peer.executing()
        await peer.say(called(1, 1, b"hangs"))
        while not began.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0)
        await peer.say(finished(1))
        while True:
            await peer.hear()

    async def play(scene: Stage) -> None:
        async with scene.sandbox(script, tools=[hangs]) as sandbox:
            assert (await sandbox.run_code("1")).ok
            await asyncio.to_thread(ended.wait, 5)

    in_stage(play)
    assert ended.is_set()


# --------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("lie", [lie for lie in LYING_VALUES if lie != "SER-02 a pickle"])
def test_arguments_that_are_none_are_a_violation_and_no_tool_runs(lie: str) -> None:
    data = pb.Arguments(positional=pb.ValueList(items=[pb.Value()])).SerializeToString()
    value = LYING_VALUES[lie]
    data = _chunk(1, _chunk(1, value)) if value else data
    refused(calls(called(1, 1, b"add", data), end=False), error=ProtocolViolation, tools=[add])
    assert CALLED == []


def _chunk(field: int, body: bytes) -> bytes:
    size, digits = len(body), []
    while size > 127:
        digits.append(size & 127 | 128)
        size >>= 7
    return bytes([field << 3 | 2, *digits, size]) + body


@pytest.mark.parametrize(
    "data",
    [b"\xff", b"\x80\x04\x95", bytes((2 << 20) + 5000)],
    ids=["noise", "a pickle", "over the bound"],
)
def test_arguments_that_cannot_be_read_are_a_violation(data: bytes) -> None:
    refused(calls(called(1, 1, b"add", data), end=False), error=ProtocolViolation, tools=[add])
    assert CALLED == []


def test_a_keyword_that_is_no_text_is_a_violation_and_a_hostile_one_is_only_a_name() -> None:
    number = pb.Pairs(items=[pb.Pair(key=pb.Value(integer=1), value=pb.Value(integer=1))])
    data = pb.Arguments(keyword=number).SerializeToString()
    refused(calls(called(1, 1, b"add", data), end=False), error=ProtocolViolation, tools=[add])
    name = pb.Pairs(items=[pb.Pair(key=pb.Value(text=b"__class__"), value=pb.Value(integer=1))])
    events = outcomes(calls(called(1, 1, b"add", pb.Arguments(keyword=name).SerializeToString())))
    assert isinstance(events[0], ToolCall)
    assert CALLED == [(("__class__", 1),)]


# ------------------------------------------------------------------------------------------------------------ too many


def named(name: str) -> Callable[[], None]:
    """A tool of that name. A refusal lists those that there are, so long names make long answers."""

    def tool() -> None: ...

    tool.__name__ = name
    return tool


def test_tool_02_calls_that_nobody_answers_for_do_not_fill_the_host_with_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The executor takes no answers: once enough of them wait, it is not listened to any more."""
    monkeypatch.setattr(channel, "MAX_UNSENT", 8 << 10)
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.executing()
        while True:
            sent += 1
            await peer.say(called(1, sent, b"other"))

    most = 0

    async def watch(sandbox: AsyncSandbox) -> None:
        nonlocal most
        async for _ in sandbox.stream("1"):
            link = sandbox._link
            assert link
            most = max(most, link.channel._unsent)

    refused(script, watch, SandboxDied, tools=[named(f"{'x' * 240}{n}") for n in range(40)], margin=3.0)
    assert most < (8 << 10) + 20_000  # and the answer to one call more
    assert sent < 100_000
