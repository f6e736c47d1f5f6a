"""Frames between the supervisor and a runner: cut anywhere, whole again; nothing illegal and nothing unbounded."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image.frames import FROM_RUNNER, HEADER, TO_RUNNER, FrameReader, FrameViolation, Legal, pack

LEGAL = {1: (0, 0), 2: (1, 5), 3: (0, 300)}  # smallest and largest body of each type
TABLES = pytest.mark.parametrize("table", [FROM_RUNNER, TO_RUNNER], ids=["from runner", "to runner"])
few = settings(deadline=None, max_examples=60)


def legal_frames() -> st.SearchStrategy[list[tuple[int, bytes]]]:
    frame = st.sampled_from(sorted(LEGAL)).flatmap(
        lambda kind: st.tuples(st.just(kind), st.binary(min_size=LEGAL[kind][0], max_size=LEGAL[kind][1]))
    )
    return st.lists(frame, max_size=20)


def read_in_pieces(reader: FrameReader, stream: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [frame for start, end in pairwise(edges) for frame in list(reader.feed(stream[start:end]))]


@few
@given(sent=legal_frames(), cuts=st.lists(st.integers(0, 10_000), max_size=30))
def test_frames_survive_any_chunking(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(pack(kind, body) for kind, body in sent)
    assert read_in_pieces(FrameReader(LEGAL), stream, cuts) == sent


@few
@given(sent=legal_frames())
def test_frames_survive_one_byte_at_a_time(sent: list[tuple[int, bytes]]) -> None:
    reader = FrameReader(LEGAL)
    stream = b"".join(pack(kind, body) for kind, body in sent)
    assert [frame for byte in stream for frame in reader.feed(bytes([byte]))] == sent


@few
@given(parts=st.lists(st.binary(max_size=40), max_size=6))
def test_the_parts_of_a_body_are_joined(parts: list[bytes]) -> None:
    ((kind, body),) = FrameReader(LEGAL).feed(pack(3, *parts))
    assert (kind, body) == (3, b"".join(parts))


@TABLES
def test_a_body_within_its_bounds_is_legal_and_one_byte_outside_is_not(table: Legal) -> None:
    for kind, bounds in table.items():
        for length in bounds:
            ((read, body),) = FrameReader(table).feed(pack(kind, bytes(length)))
            assert (read, len(body)) == (kind, length)
        shortest, longest = bounds
        for length in {shortest - 1, longest + 1} - {-1}:
            with pytest.raises(FrameViolation, match=rf"type {kind} and {length} bytes"):
                list(FrameReader(table).feed(HEADER.pack(length, kind)))


@TABLES
def test_every_type_that_is_not_listed_is_a_violation(table: Legal) -> None:
    for kind in set(range(256)) - set(table):
        with pytest.raises(FrameViolation):
            list(FrameReader(table).feed(pack(kind)))


def test_a_type_is_legal_in_one_direction_only() -> None:
    assert not set(FROM_RUNNER) & set(TO_RUNNER)


def test_frames_before_a_violation_are_still_delivered() -> None:
    reader = FrameReader(LEGAL)
    got = []
    with pytest.raises(FrameViolation):  # noqa: PT012 - what came out before it is the point
        for frame in reader.feed(pack(2, b"abc") + pack(9)):
            got.append(frame)
    assert got == [(2, b"abc")]


def test_a_length_over_the_bound_is_refused_before_its_body_comes() -> None:
    with pytest.raises(FrameViolation):
        list(FrameReader(LEGAL).feed(HEADER.pack(0xFFFFFFFF, 3)))


@few
@given(data=st.binary(max_size=400))
def test_hostile_bytes_give_frames_or_a_violation(data: bytes) -> None:
    reader = FrameReader(LEGAL)
    try:
        for kind, body in reader.feed(data):
            shortest, longest = LEGAL[kind]
            assert shortest <= len(body) <= longest
    except FrameViolation:
        pass


@few
@given(data=st.lists(st.binary(min_size=1, max_size=50), max_size=60))
def test_no_more_is_kept_than_one_unfinished_frame(data: list[bytes]) -> None:
    reader = FrameReader(LEGAL)
    largest = HEADER.size + max(longest for _, longest in LEGAL.values())
    for piece in data:
        try:
            list(reader.feed(piece))
        except FrameViolation:
            return
        assert len(reader._buffer) < largest


def test_a_consumer_that_fails_midway_loses_only_the_frame_it_failed_on() -> None:
    reader = FrameReader(LEGAL)
    feeding = reader.feed(pack(2, b"a") + pack(2, b"b") + pack(2, b"c"))
    assert next(feeding) == (2, b"a")
    feeding.close()
    assert list(reader.feed(b"")) == [(2, b"b"), (2, b"c")]
