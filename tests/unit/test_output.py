"""What code writes, from its ``print`` to the message for the host: order kept, caps kept, what is dropped counted."""

from __future__ import annotations

import array
import asyncio
import threading

import pytest
from executor_api.v1 import executor_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image.frames import MAX_PIECE, STDERR, STDOUT
from executor_image.runner.output import FrameWriter
from executor_image.supervisor.execution import MIN_CHARGE, OUTPUT_KILL_FACTOR, CappedOutput
from executor_image.supervisor.outbox import HIGH_WATER, LOW_WATER, MAX_MESSAGE_TEXT, Outbox
from orchestrator.sandbox.session import Session

OUT, ERR = pb.Output.STREAM_STDOUT, pb.Output.STREAM_STDERR
few = settings(max_examples=80)
Emitted = list[tuple[int, bytes, int]]

# ----------------------------------------------------------------------------------------- the runner's FrameWriter


def writer() -> tuple[FrameWriter, list[tuple[int, bytes]]]:
    sent: list[tuple[int, bytes]] = []
    return FrameWriter(STDOUT, 1, "<stdout>", lambda kind, data: sent.append((kind, data))), sent


def test_a_line_leaves_at_once_and_the_start_of_one_waits() -> None:
    out, sent = writer()
    assert out.write("a") == 1
    assert sent == []
    out.write("b\nc")
    assert sent == [(STDOUT, b"ab\nc")]
    out.write("d")
    out.flush()
    out.flush()
    assert [data for _, data in sent] == [b"ab\nc", b"d"]


@few
@given(st.lists(st.text(max_size=50) | st.just("x" * (MAX_PIECE + 1)), max_size=20))
def test_nothing_is_lost_or_reordered_and_no_piece_is_too_large(texts: list[str]) -> None:
    out, sent = writer()
    for text in texts:
        assert out.write(text) == len(text)
    out.flush()
    assert b"".join(data for _, data in sent).decode() == "".join(texts)
    assert all(0 < len(data) <= MAX_PIECE for _, data in sent)


def test_two_streams_keep_the_order_of_their_lines() -> None:
    sent: list[tuple[int, bytes]] = []
    out, err = (FrameWriter(kind, 1, "", lambda k, d: sent.append((k, d))) for kind in (STDOUT, STDERR))
    for i in range(5):
        print(i, file=out)
        print(-i, file=err)
    assert sent == [(kind, f"{i * sign}\n".encode()) for i in range(5) for kind, sign in ((STDOUT, 1), (STDERR, -1))]


def test_many_writes_without_a_line_end_are_not_kept_for_ever() -> None:
    out, sent = writer()
    for _ in range(1000):
        out.write("x")
    assert sum(len(data) for _, data in sent) > 500


def test_a_lone_surrogate_is_shown_and_fails_nothing() -> None:
    out, sent = writer()
    out.write("a\udcffb\n")
    assert sent == [(STDOUT, b"a\\udcffb\n")]


@pytest.mark.parametrize("wrong", [b"x", 1, None])
def test_what_is_no_text_is_refused_as_by_any_text_file(wrong: object) -> None:
    out, _ = writer()
    with pytest.raises(TypeError, match="must be str"):
        out.write(wrong)  # type: ignore[arg-type]


def test_bytes_come_after_the_text_written_before_them() -> None:
    out, sent = writer()
    out.write("text ")
    out.buffer.write(b"\xff\xfe")
    out.buffer.write(memoryview(b"view"))
    assert b"".join(data for _, data in sent) == b"text \xff\xfeview"


def test_the_bytes_of_any_buffer_are_counted_as_bytes() -> None:
    out, sent = writer()
    numbers = array.array("i", [1, 2])
    assert out.buffer.write(numbers) == len(numbers.tobytes())  # type: ignore[arg-type]
    assert sent == [(STDOUT, numbers.tobytes())]


def test_a_number_is_no_bytes() -> None:
    out, sent = writer()
    with pytest.raises(TypeError):
        out.buffer.write(5)  # type: ignore[arg-type]
    assert sent == []


def test_it_looks_like_a_text_stream_to_libraries() -> None:
    out, _ = writer()
    assert (out.encoding, out.errors, out.fileno(), out.name) == ("utf-8", "backslashreplace", 1, "<stdout>")
    assert out.writable()
    assert not out.readable()
    assert not out.isatty()


def test_lines_of_several_threads_stay_whole() -> None:
    out, sent = writer()
    lines = [f"{n}" * 50 + "\n" for n in range(4)]
    threads = [threading.Thread(target=lambda line=line: [out.write(line) for _ in range(50)]) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(data.decode() for _, data in sent) == sorted(lines * 50)


# -------------------------------------------------------------------------------------- the supervisor's CappedOutput


def capped(cap: int, pieces: list[tuple[int, bytes]]) -> tuple[CappedOutput, Emitted]:
    emitted: Emitted = []
    output = CappedOutput(cap, lambda stream, text, dropped: emitted.append((stream, text, dropped)))
    for stream, text in pieces:
        output.add(stream, text)  # type: ignore[arg-type]
    output.finish()
    return output, emitted


pieces_of_text = st.lists(st.tuples(st.sampled_from([OUT, ERR]), st.binary(min_size=1, max_size=400)), max_size=40)


@few
@given(st.integers(1024, 4096), pieces_of_text)  # 1 KiB is the least that Limits allows
def test_no_more_than_the_cap_is_kept_and_every_other_byte_is_counted(
    cap: int, pieces: list[tuple[int, bytes]]
) -> None:
    output, emitted = capped(cap, pieces)
    kept = sum(len(text) for _, text, _ in emitted)
    assert kept <= cap
    assert output.total == sum(len(text) for _, text in pieces) == kept + output.dropped
    assert sum(dropped for _, _, dropped in emitted) == output.dropped


@few
@given(st.integers(1024, 4096), pieces_of_text)  # 1 KiB is the least that Limits allows
def test_what_is_kept_is_the_beginning_and_the_end_in_order(cap: int, pieces: list[tuple[int, bytes]]) -> None:
    _, emitted = capped(cap, pieces)
    written = [(stream, byte) for stream, text in pieces for byte in text]
    kept = [(stream, byte) for stream, text, _ in emitted for byte in text]
    gap = next((i for i, (_, _, dropped) in enumerate(emitted) if dropped), len(emitted))
    head = sum(len(text) for _, text, _ in emitted[:gap])
    assert kept[:head] == written[:head]
    assert head >= min(cap // 2, len(written))
    assert kept[head:] == written[len(written) - (len(kept) - head) :]


@few
@given(st.integers(1024, 4096), pieces_of_text)  # 1 KiB is the least that Limits allows
def test_the_head_is_passed_on_at_once(cap: int, pieces: list[tuple[int, bytes]]) -> None:
    emitted: Emitted = []
    output = CappedOutput(cap, lambda stream, text, dropped: emitted.append((stream, text, dropped)))
    for i, (stream, text) in enumerate(pieces):
        output.add(stream, text)  # type: ignore[arg-type]
        so_far = sum(len(text) for _, text in pieces[: i + 1])
        assert sum(len(text) for _, text, _ in emitted) == min(cap // 2, so_far)


@pytest.mark.parametrize("after", [b"", b"\n", b"done\n"])
def test_a_tail_is_filled_up_whatever_pieces_it_came_in(after: bytes) -> None:
    cap = 64 << 10  # the tail is half a piece
    pieces = [(OUT, b"x" * MAX_PIECE), (OUT, b"y" * MAX_PIECE), *([(OUT, after)] if after else [])]
    _, emitted = capped(cap, pieces)
    assert sum(len(text) for _, text, _ in emitted) >= cap - MIN_CHARGE


def test_tiny_writes_do_not_fill_the_memory_with_objects() -> None:
    cap = 10_000
    output, emitted = capped(cap, [(OUT, b"x")] * 20_000)
    assert len(emitted) <= cap // 2 + cap // 2 // MIN_CHARGE
    assert output.dropped == 20_000 - sum(len(text) for _, text, _ in emitted)


def test_a_flood_is_told_from_much_output() -> None:
    output, _ = capped(1000, [(OUT, b"x" * 1000)] * OUTPUT_KILL_FACTOR)
    assert not output.flooded
    output.add(OUT, b"x")
    assert output.flooded


# ------------------------------------------------------------------------------------------------------- the Outbox


def drained(outbox: Outbox) -> list[pb.ExecutorMessage]:
    async def drain() -> list[pb.ExecutorMessage]:
        async with asyncio.timeout(10):
            return [await outbox.get() for _ in range(len(outbox._items))]

    return asyncio.run(drain())


def texts(messages: list[pb.ExecutorMessage]) -> list[tuple[int, bytes, int]]:
    return [(m.output.stream, m.output.text, m.output.dropped_before) for m in messages]


def test_waiting_output_of_one_stream_grows_together() -> None:
    outbox = Outbox(lambda _: None)
    for stream, text in ((OUT, b"a"), (OUT, b"b"), (ERR, b"c"), (OUT, b"d"), (OUT, b"e")):
        outbox.put_output(1, stream, text)
    assert texts(drained(outbox)) == [(OUT, b"ab", 0), (ERR, b"c", 0), (OUT, b"de", 0)]


def test_a_gap_another_execution_and_another_message_each_start_a_piece() -> None:
    outbox = Outbox(lambda _: None)
    outbox.put_output(1, OUT, b"a")
    outbox.put_output(1, OUT, b"b", 7)
    outbox.put_output(1, OUT, b"c")
    outbox.put_output(2, OUT, b"d")
    outbox.put(pb.ExecutorMessage(tool_call=pb.ToolCall(id=2)))
    outbox.put_output(2, OUT, b"e")
    messages = drained(outbox)
    assert [m.WhichOneof("kind") for m in messages] == ["output", "output", "output", "tool_call", "output"]
    assert [(m.output.id, *t) for m, t in zip(messages, texts(messages), strict=True)][:3] == [
        *((1, OUT, b"a", 0), (1, OUT, b"bc", 7), (2, OUT, b"d", 0))
    ]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from([OUT, ERR]), st.integers(1, MAX_PIECE)), max_size=20))
def test_pieces_grow_to_their_bound_and_nothing_is_lost(writes: list[tuple[int, int]]) -> None:
    outbox = Outbox(lambda _: None)
    for i, (stream, size) in enumerate(writes):
        outbox.put_output(1, stream, bytes([i]) * size)  # type: ignore[arg-type]
    messages = texts(drained(outbox))
    assert all(len(text) <= MAX_MESSAGE_TEXT for _, text, _ in messages)
    got = b"".join(text for _, text, _ in messages)
    assert got == b"".join(bytes([i]) * size for i, (_, size) in enumerate(writes))


def test_pressure_is_put_on_above_high_water_and_taken_off_below_low_water_once_each() -> None:
    pressed: list[bool] = []
    outbox = Outbox(pressed.append)
    piece = bytes(MAX_MESSAGE_TEXT)
    for _ in range(HIGH_WATER // len(piece)):
        outbox.put_output(1, OUT, piece)
    assert pressed == []
    outbox.put_output(1, OUT, b"x")
    outbox.put_output(1, OUT, piece)
    assert pressed == [True]

    async def read_until(left: int) -> None:
        async with asyncio.timeout(10):
            while outbox._bytes >= left:
                await outbox.get()

    asyncio.run(read_until(LOW_WATER + len(piece)))
    assert pressed == [True]
    asyncio.run(read_until(LOW_WATER))
    assert pressed == [True, False]


def test_a_reader_that_waits_is_woken_and_one_that_gave_up_does_no_harm() -> None:
    async def main() -> pb.ExecutorMessage:
        outbox = Outbox(lambda _: None)
        first = asyncio.create_task(outbox.get())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first], timeout=10)
        reading = asyncio.create_task(outbox.get())
        await asyncio.sleep(0)
        outbox.put_output(3, ERR, b"late")
        outbox.put_output(3, ERR, b"r")
        async with asyncio.timeout(10):
            return await reading

    assert asyncio.run(main()).output.text == b"later"


@pytest.mark.parametrize("line", [2, 80])
def test_what_one_execution_may_write_is_never_a_violation_to_the_host(line: int) -> None:
    cap = 1 << 20  # the default
    outbox = Outbox(lambda _: None)
    session = Session(cap)
    session.receive(pb.ExecutorMessage(challenge=pb.Challenge()))
    session.receive(pb.ExecutorMessage(ready=pb.Ready()))
    execution = session.begin_execution()
    output = CappedOutput(cap, lambda stream, text, dropped: outbox.put_output(execution, stream, text, dropped))
    for i in range(cap // line):
        output.add(ERR if i % 2 else OUT, b"x" * line)  # two streams in turn: nothing is coalesced
    output.finish()
    assert not output.flooded
    for message in drained(outbox):
        session.receive(message)
