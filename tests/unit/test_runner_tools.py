"""Host tools as user code sees them: a call goes up as one frame and comes back as a value or an exception."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from executor_image import frames
from executor_image.runner.channel import Channel
from executor_image.runner.tools import Calls, ToolError, make_function
from executor_image.runner.values import NotPortable
from orchestrator.errors import ProtocolViolation
from orchestrator.sandbox.values import encode
from tests.unit.value_samples import decode_arguments

NONCE = bytes(range(16))
DEADLINE = 10.0
Answer = Callable[[str, tuple[Any, ...], dict[str, Any]], bytes]


def spec(name: str, awaitable: bool = False) -> dict[str, Any]:
    return {"name": name, "doc": "d", "parameters": [], "returns": "", "awaitable": awaitable}


def ok(value: object) -> bytes:
    return b"\0" + encode(value, "value")


def failed(name: str, message: str) -> bytes:
    return b"\1" + json.dumps([name, message]).encode()


@contextmanager
def supervised(answer: Answer, together: int = 1) -> Iterator[Calls]:
    """A runner's calls, and a thread that answers once ``together`` calls wait, the last one first."""
    ours, theirs = socket.socketpair()

    def supervise() -> None:
        reader, waiting = frames.FrameReader(frames.FROM_RUNNER), []
        with theirs, suppress(ProtocolViolation, UnicodeDecodeError):  # closed at that: a call does not wait for ever
            while data := theirs.recv(1 << 16):
                waiting += [answered(body) for _, body in reader.feed(data)]
                if len(waiting) >= together:
                    theirs.sendall(b"".join(frames.pack(frames.TOOL_RESULT, body) for body in reversed(waiting)))
                    waiting.clear()

    def answered(body: bytes) -> bytes:
        nonce, number, length = frames.CALL_HEAD.unpack_from(body)
        rest = body[frames.CALL_HEAD.size :]
        args, kwargs = decode_arguments(rest[length:])
        return frames.U32.pack(number) + answer(rest[:length].decode() if nonce == NONCE else "", args, kwargs)

    thread = threading.Thread(target=supervise, daemon=True)
    thread.start()
    try:
        calls = Calls(Channel(ours))
        calls.nonce = NONCE
        yield calls
    finally:
        ours.close()
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_a_call_carries_its_name_and_arguments_and_gives_the_value() -> None:
    with supervised(lambda name, args, kwargs: ok([name, args, kwargs])) as calls:
        tool = make_function(spec("search"), lambda: calls)
        assert tool(1, [2], key="v") == ["search", (1, [2]), {"key": "v"}]


def test_a_name_beyond_ascii_arrives_whole() -> None:
    with supervised(lambda name, args, kwargs: ok([name, args])) as calls:
        assert make_function(spec("größe"), lambda: calls)("x") == ["größe", ("x",)]


@pytest.mark.parametrize(
    ("name", "message", "raised", "text"),
    [
        ("ValueError", "no", ValueError, "no"),
        ("PermissionError", "not granted", PermissionError, "not granted"),
        ("Own", "mine", ToolError, "Own: mine"),
        ("ToolError", "f failed", ToolError, "f failed"),
        ("ExceptionGroup", "several (1 sub-exception)", ToolError, "several"),
        ("UnicodeDecodeError", "bad", ToolError, "UnicodeDecodeError: bad"),
        ("StopIteration", "", ToolError, "StopIteration"),
        ("SystemExit", "3", ToolError, "SystemExit: 3"),
        ("KeyboardInterrupt", "", ToolError, "KeyboardInterrupt"),
        ("print", "x", ToolError, "print: x"),
        ("os.system", "x", ToolError, "os.system: x"),
        ("__import__", "os", ToolError, "__import__: os"),
    ],
)
def test_a_failure_is_a_plain_builtin_exception_or_a_tool_error(
    name: str, message: str, raised: type[Exception], text: str
) -> None:
    with (
        supervised(lambda *_: failed(name, message)) as calls,
        pytest.raises(Exception) as caught,  # noqa: PT011 - its type is looked at below
    ):
        make_function(spec("f"), lambda: calls)()
    assert type(caught.value) is raised
    assert text in str(caught.value)


def test_an_argument_that_cannot_travel_is_refused_before_anything_is_sent() -> None:
    sent: list[str] = []
    with supervised(lambda name, *_: sent.append(name) or ok(None)) as calls:  # type: ignore[func-returns-value]
        tool = make_function(spec("f"), lambda: calls)
        with pytest.raises(NotPortable, match="argument 1 is of type object"):
            tool(object())
        assert tool() is None
    assert sent == ["f"]


def test_calls_from_several_threads_get_each_its_own_result() -> None:
    results: dict[int, Any] = {}
    with supervised(lambda name, args, kwargs: ok(args[0] * 10), together=8) as calls:
        tool = make_function(spec("f"), lambda: calls)
        threads = [threading.Thread(target=lambda n=n: results.update({n: tool(n)}), daemon=True) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
    assert results == {n: n * 10 for n in range(8)}


def test_an_async_tool_is_awaited_in_a_loop_and_called_like_any_other_elsewhere() -> None:
    with supervised(lambda name, args, kwargs: ok(args[0] + 1)) as calls:
        tool = make_function(spec("f", awaitable=True), lambda: calls)
        assert tool(1) == 2

        async def main() -> int:
            async with asyncio.timeout(DEADLINE):
                return await tool(2)  # type: ignore[no-any-return]

        assert asyncio.run(main()) == 3


def test_gathered_calls_are_under_way_together() -> None:
    with supervised(lambda name, args, kwargs: ok(args[0]), together=4) as calls:
        tool = make_function(spec("f", awaitable=True), lambda: calls)

        async def main() -> list[int]:
            async with asyncio.timeout(DEADLINE):
                return await asyncio.gather(*(tool(n) for n in range(4)))

        assert asyncio.run(main()) == [0, 1, 2, 3]
