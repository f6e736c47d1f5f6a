"""The thread of a local model, with writers of the tests' own; and local models whose libraries are not there."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from contextlib import aclosing
from importlib.util import find_spec
from typing import Any

import pytest

from orchestrator.errors import ConfigError, ModelUnavailable
from orchestrator.models import ChatMessage, ModelReply, TokenUsage
from orchestrator.models.asked import Asked
from orchestrator.models.local import LocalModel
from orchestrator.models.mlx import MLXModel
from orchestrator.models.transformers import TransformersModel
from orchestrator.models.vllm import VLLMModel
from orchestrator.models.worker import _MAX_WAITING, Output, Worker

DEADLINE = 30.0
MESSAGES = (ChatMessage("user", "u"),)


class Writing(LocalModel):
    """A local model that writes what a function says."""

    def __init__(self, write: Callable[[Output], None]) -> None:
        super().__init__("m")
        self._function = write

    def _write(self, asked: Asked, output: Output) -> None:
        self._function(output)


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, DEADLINE))


def letters(output: Output) -> None:
    written = 0
    for letter in "abcdefgh":
        if output.over:
            break
        written += 1
        output.text(letter)
    output.end(TokenUsage(1, written))


@pytest.mark.parametrize(
    ("stops", "text", "written"),
    [((), "abcdefgh", 8), (("de",), "abc", 5), (("x", "h"), "abcdefg", 8), (("hi",), "abcdefgh", 8)],
)
def test_a_reply_ends_at_a_stop_sequence(stops: tuple[str, ...], text: str, written: int) -> None:
    assert run(Writing(letters).generate(MESSAGES, stops)) == ModelReply(text, TokenUsage(1, written))


def test_a_slow_reader_stops_the_writer() -> None:
    sent = taken = most = 0
    full = threading.Event()

    def write(output: Output) -> None:
        nonlocal sent, most
        for _ in range(3 * _MAX_WAITING):
            sent += 1
            most = max(most, sent - taken)
            if sent - taken > _MAX_WAITING:
                full.set()
            output.text("x")
        output.end(TokenUsage(0, sent))

    async def slow() -> None:
        nonlocal taken
        async with aclosing(Writing(write).generate_stream(MESSAGES)) as stream:
            async for piece in stream:
                if not taken:
                    assert await asyncio.to_thread(full.wait, DEADLINE)
                taken += len(piece.text)

    run(slow())
    assert taken == sent == 3 * _MAX_WAITING
    assert most <= _MAX_WAITING + 2  # that the writer is about to send, and that the reader is about to count


def endless(output: Output) -> None:
    while not output.over:
        output.text("x")


def test_a_closed_stream_ends_a_writer_that_waits_for_room() -> None:
    model = Writing(endless)

    async def closed() -> ModelReply:
        async with aclosing(model.generate_stream(MESSAGES)) as stream:
            await anext(stream)
        model._function = letters
        return await model.generate(MESSAGES)

    assert run(closed()).text == "abcdefgh"


def test_a_call_that_is_cancelled_before_its_turn_is_never_begun() -> None:
    begun, go_on = threading.Event(), threading.Event()
    count = 0

    def write(output: Output) -> None:
        nonlocal count
        count += 1
        begun.set()
        assert go_on.wait(DEADLINE)
        letters(output)

    async def cancelled() -> None:
        model = Writing(write)
        first, second = (asyncio.ensure_future(model.generate(MESSAGES)) for _ in range(2))
        assert await asyncio.to_thread(begun.wait, DEADLINE)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go_on.set()
        assert (await first).text == "abcdefgh"
        assert (await model.generate(MESSAGES)).text == "abcdefgh"

    run(cancelled())
    assert count == 2


def test_what_a_library_raises_is_a_failure_of_the_model_with_its_cause() -> None:
    def write(output: Output) -> None:
        output.text("a")
        raise RuntimeError("out\nof memory")

    model = Writing(write)
    with pytest.raises(ModelUnavailable, match="model m failed: RuntimeError: out of memory") as caught:
        run(model.generate(MESSAGES))
    assert isinstance(caught.value.__cause__, RuntimeError)
    model._function = letters
    assert run(model.generate(MESSAGES)).text == "abcdefgh"


def test_what_a_library_says_is_told_like_what_an_endpoint_says() -> None:
    def write(output: Output) -> None:
        raise RuntimeError("no access with hf_abcdefghijklmnop\x1b]0;PWNED\x07\u202e" + "x" * 1000)

    with pytest.raises(ModelUnavailable) as caught:
        run(Writing(write).generate(MESSAGES))
    told = str(caught.value)
    assert told.startswith("model m failed: RuntimeError: no access with [key]\\u202ex")
    assert len(told) < 330


def test_a_response_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="model m: Writing takes no response_format"):
        run(Writing(letters).generate(MESSAGES, response_format={"type": "json_object"}))


def test_a_loop_that_is_gone_ends_a_writer_that_waits_for_room() -> None:
    full = threading.Event()

    def write(output: Output) -> None:
        for count in range(_MAX_WAITING + 2):
            if count == _MAX_WAITING:
                full.set()
            output.text("x")

    model = Writing(write)
    stream = model.generate_stream(MESSAGES)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.wait_for(anext(stream), DEADLINE))
    assert full.wait(DEADLINE)
    loop.close()  # without a word to the stream
    model._function = letters
    assert run(model.generate(MESSAGES)).text == "abcdefgh"


def test_a_worker_ends_with_its_owner_and_can_be_ended() -> None:
    worker = Worker("w")
    thread = worker._thread
    assert worker.call(threading.current_thread) is thread
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 // 0)
    del worker
    gc.collect()
    thread.join(DEADLINE)
    assert not thread.is_alive()

    ended = Writing(endless)

    async def end() -> None:
        async with aclosing(ended.generate_stream(MESSAGES)) as stream:
            await anext(stream)
            await asyncio.to_thread(ended._worker.end)
            assert not ended._worker._thread.is_alive()

    run(end())


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [(TransformersModel, "torch", "transformers"), (VLLMModel, "vllm", "vllm"), (MLXModel, "mlx_lm", "mlx")],
)
def test_a_missing_library_is_one_line_that_names_the_extra(kind: type[LocalModel], module: str, extra: str) -> None:
    if find_spec(module):
        pytest.skip(f"{module} is installed")
    with pytest.raises(ConfigError, match=rf"needs {module}; install it with: pip install 'cellblock\[{extra}\]'"):
        kind("no/model")
