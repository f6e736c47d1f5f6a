"""Frames between the supervisor and another process: cut anywhere, whole again; nothing illegal or unbounded."""

from __future__ import annotations

import json
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor_image import frames
from executor_image.frames import (
    FROM_RUNNER,
    FROM_WARDEN,
    HEADER,
    TO_RUNNER,
    TO_WARDEN,
    FrameReader,
    FrameViolation,
    Legal,
    pack,
)
from executor_image.supervisor import container as supervisor_container
from orchestrator.sandbox import lockdown

LEGAL = {1: (0, 0), 2: (1, 5), 3: (0, 300)}  # smallest and largest body of each type
DIRECTIONS = {
    "from runner": FROM_RUNNER,
    "to runner": TO_RUNNER,
    "from warden": FROM_WARDEN,
    "to warden": TO_WARDEN,
}
TABLES = pytest.mark.parametrize("table", DIRECTIONS.values(), ids=DIRECTIONS)
few = settings(max_examples=60)


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
    for one, other in combinations(DIRECTIONS.values(), 2):
        assert not set(one) & set(other)


def test_every_type_there_is_has_its_bounds_in_one_table() -> None:
    listed = [kind for table in DIRECTIONS.values() for kind in table]
    other = ("FORK_", "MAX_", "OUTCOME_", "NONCE_")
    named = {n: v for n, v in vars(frames).items() if n.isupper() and type(v) is int and not n.startswith(other)}
    assert sorted(listed) == sorted(named.values())


@pytest.mark.parametrize(
    ("kind", "shortest", "longest"),
    [
        (frames.FORK, 5, 5),
        (frames.WAKE, 4, 4),
        (frames.INTERRUPT, 8, 8),
        (frames.READY, 0, 0),
        (frames.FORKED, 9, 9),
        (frames.WOKEN, 1, 1 + frames.MAX_REASON),
        (frames.BORN, 0, 0),
        (frames.SIGNAL, 5, 5),
        (frames.SWEEP, 0, frames.MAX_SWEEP),
        (frames.REMOVE, 4, 4),
        (frames.SWEPT, 8, 8),
        (frames.REMOVED, 0, 0),
    ],
)
def test_what_is_said_of_states_has_these_bounds(kind: int, shortest: int, longest: int) -> None:
    (bounds,) = [table[kind] for table in DIRECTIONS.values() if kind in table]
    assert bounds == (shortest, longest)


@few
@given(number=st.integers(0, 2**32 - 1), pid=st.integers(-(2**31), 2**31 - 1), flag=st.booleans())
def test_reports_and_commands_about_processes_hold_what_was_put_in(number: int, pid: int, flag: bool) -> None:
    forked = frames.FORKED_BODY.pack(number, pid, flag)
    assert frames.FORKED_BODY.unpack(forked) == (number, pid, flag)
    assert frames.FORK_BODY.unpack(frames.FORK_BODY.pack(number, flag)) == (number, flag)
    assert frames.SIGNAL_BODY.unpack(frames.SIGNAL_BODY.pack(pid, 64 * flag)) == (pid, 64 * flag)
    assert frames.SWEPT_BODY.unpack(frames.SWEPT_BODY.pack(number, 0)) == (number, 0)


def test_the_warden_takes_the_pids_of_every_process_that_there_can_be() -> None:
    pids = [2**22 - 1] * (lockdown.STATES + supervisor_container.MAX_BRANCHES)  # kernel.pid_max at its largest
    body = json.dumps({"keep": pids, "stopped": pids, "spare": pids}).encode()
    assert len(body) <= frames.MAX_SWEEP


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
