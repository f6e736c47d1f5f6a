"""What must hold for any bytes at all: of messages, of values, of frames, in any order and cut anywhere.

``make fuzz`` runs the same properties for as long as one likes, guided by what code they reach.
"""

from __future__ import annotations

import math
import os
from itertools import pairwise
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb
from google.protobuf import empty_pb2
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import example, given, settings
from hypothesis import strategies as st

from executor_image import frames
from executor_image.frames import FROM_RUNNER, FROM_WARDEN, HEADER, TO_RUNNER, TO_WARDEN, FrameReader, FrameViolation
from orchestrator.errors import ProtocolViolation, ValueNotPortable
from orchestrator.events import Execution, Finished
from orchestrator.sandbox import wire
from orchestrator.sandbox.execution import Conversation, OutputLog
from orchestrator.sandbox.isolation import examine
from orchestrator.sandbox.session import LEGAL, MAX_SIZES, OUTPUT_SLACK, Phase, Session
from orchestrator.sandbox.state import checkpoint_of, forked_of, only, rollback_of
from orchestrator.sandbox.values import decode, decode_message, encode
from orchestrator.sanitise import one_line, sanitise
from tests.hostile.oracle import BROKEN, in_stage
from tests.hostile.peer import Peer
from tests.hostile.protobufs import damaged, integers, messages
from tests.hostile.stage import Stage
from tests.unit.loops import in_loop
from tests.unit.peers import Pair, settled
from tests.unit.ready import ASKED
from tests.unit.test_values_hostile import only_plain
from tests.unit.value_samples import decode_arguments, same

CAP = 4096
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))  # of each property
often = settings(deadline=None, max_examples=EXAMPLES)
seldom = settings(deadline=None, max_examples=EXAMPLES // 6)

# ---------------------------------------------------------------------------------------------------------- values

a_value = messages(pb.Value)
some_arguments = messages(pb.Arguments)


def _is_fit_to_be_shown(error: Exception) -> None:
    assert str(error).isprintable()
    assert len(str(error)) < 600


def _plain_or_refused(read: Any, given_: Any) -> Any:
    try:
        found = read(given_)
    except ProtocolViolation as violation:
        _is_fit_to_be_shown(violation)
        return None
    assert only_plain(found)
    return found


@often
@given(a_value)
def any_value_is_plain_data_or_a_violation(value: pb.Value) -> None:
    found = _plain_or_refused(decode, value.SerializeToString())
    _plain_or_refused(decode_message, value)
    assert len(repr(found)) < 100_000
    with_back(found)


def with_back(value: Any) -> None:
    """What came out may go in again, or it is said why not."""
    try:
        again = decode(encode(value, "it"))
    except ValueNotPortable:
        return
    assert same(again, value) or "nan" in repr(value).lower()  # which in a set is not even itself


@often
@given(damaged(a_value.map(pb.Value.SerializeToString)))
def any_bytes_are_a_value_or_a_violation(data: bytes) -> None:
    _plain_or_refused(decode, data)


@often
@given(damaged(some_arguments.map(pb.Arguments.SerializeToString)))
def any_bytes_are_arguments_or_a_violation(data: bytes) -> None:
    found = _plain_or_refused(decode_arguments, data)
    assert found is None or all(isinstance(name, str) for name in found[1])


# --------------------------------------------------------------------------------------------------------- messages


@often
@given(st.binary(max_size=300) | damaged(messages(pb.ExecutorMessage).map(pb.ExecutorMessage.SerializeToString)))
@example(b"")
@example(pb.ExecutorMessage(file_reply=pb.FileReply(entries=[{"path": b"a"}] * 3, error=b"x")).SerializeToString())
@example(b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
def what_is_seen_of_a_message_before_it_is_parsed_is_what_protobuf_sees(data: bytes) -> None:
    try:
        number, content = wire.only_field(data)
    except wire.Malformed:
        return
    parsed = pb.ExecutorMessage()
    try:
        parsed.ParseFromString(data)
    except DecodeError:
        return
    kind = parsed.WhichOneof("kind")
    if kind is None:
        assert number not in {field.number for field in pb.ExecutorMessage.DESCRIPTOR.fields}
        return
    assert pb.ExecutorMessage.DESCRIPTOR.fields_by_name[kind].number == number
    if kind == "file_reply":
        parts = len(UnknownFieldSet(empty_pb2.Empty.FromString(bytes(content))))  # of a message that knows no field
        try:
            assert wire.has_at_most(parts, content)
            assert parts == 0 or not wire.has_at_most(parts - 1, content)
        except wire.Malformed:  # groups, which protobuf still takes
            return
        assert len(parsed.file_reply.entries) <= parts


ids = st.sampled_from([0, 1, 1, 1, 2, 3])
own_fields: dict[str, st.SearchStrategy[Any]] = {
    "id": ids,
    "call": st.integers(0, 5),
    "stream": st.sampled_from([0, 1, 2, 3]),
    "status": st.integers(0, 9),
    "state": st.integers(0, 4),
    "text": st.binary(max_size=600),
    "outcome": damaged(messages(pb.Outcome).map(pb.Outcome.SerializeToString)),
    "final_answer": damaged(a_value.map(pb.Value.SerializeToString)) | st.just(b""),
    "arguments": damaged(some_arguments.map(pb.Arguments.SerializeToString)),
    "execution": st.integers(0, 3),
    "restored_to": st.integers(0, 3),
    "wall_seconds": st.floats(0, 10) | st.floats(),
    "cpu_seconds": st.floats(0, 10),
    "age_seconds": st.floats(0, 10) | st.floats(),
    "secret": st.sampled_from([bytes(32), b""]),
}
arriving = messages(pb.ExecutorMessage, own_fields).map(pb.ExecutorMessage.SerializeToString)


def answers(**kinds: Any) -> st.SearchStrategy[list[bytes]]:
    """Mostly messages of these kinds, so that something comes of them."""
    fitting = [
        messages(kind, own_fields).map(lambda part, name=name: pb.ExecutorMessage(**{name: part}).SerializeToString())
        for name, kind in kinds.items()
    ]
    return st.lists(st.one_of(*fitting, *fitting, arriving, damaged(arriving)), max_size=8)


turn = st.one_of(
    st.tuples(st.just("execution"), answers(output=pb.Output, tool_call=pb.ToolCall, finished=pb.Finished)),
    st.tuples(st.just("file"), answers(file_reply=pb.FileReply)),
    st.tuples(st.just("state"), answers(state_reply=pb.StateReply)),
)


def _begin(session: Session, move: str) -> None:
    {
        "execution": session.begin_execution,
        "file": session.begin_file_request,
        "state": session.begin_state_request,
    }[move]()


@often
@given(st.lists(turn, max_size=6))
def in_any_order_a_session_moves_by_its_table_or_ends_in_a_violation(
    turns: list[tuple[str, list[bytes]]],
) -> None:
    session = Session(CAP, Phase.IDLE)
    written = 0
    for move, answered in turns:
        if session.phase is Phase.IDLE:
            _begin(session, move)
            written = 0 if move == "execution" else written
        for data in answered:
            before = session.phase
            try:
                message = session.read(data)
            except ProtocolViolation as violation:
                _is_fit_to_be_shown(violation)
                return  # whoever breaks the rules is not listened to any more
            kind = message.WhichOneof("kind")
            assert session.phase is LEGAL[before, kind]
            assert len(data) <= MAX_SIZES[kind]
            written += len(message.output.text)
            assert written <= CAP + OUTPUT_SLACK
            _used(message)


def _used(message: pb.ExecutorMessage) -> None:
    """What the host makes of a message that has passed: no other error than a violation comes of it."""
    try:
        match message.WhichOneof("kind"):
            case "output":
                OutputLog().add(message.output)
            case "state_reply":
                assert math.isfinite(checkpoint_of(only(message.state_reply), "").age)
                rollback_of(message.state_reply, "")
                forked_of(message.state_reply)
            case "finished":
                _used_end(message.finished)
    except ProtocolViolation as violation:
        _is_fit_to_be_shown(violation)


def _used_end(finished: pb.Finished) -> None:
    conversation = Conversation.__new__(Conversation)  # nothing but what the end needs
    conversation.id, conversation._timeout, conversation._log = finished.id, 1.0, OutputLog()
    execution = conversation._execution(finished)
    assert isinstance(execution, Execution)
    assert execution.files_reason.isprintable()
    assert isinstance(execution.logs.raw_stdout, bytes)
    str(execution.error)


@often
@given(messages(pb.Ready, {"path": st.text(max_size=300), "options": st.text(max_size=300)}))
def whatever_a_supervisor_finds_is_judged(ready: pb.Ready) -> None:
    for layer in examine(ready, ASKED).layers:
        assert layer.proof.isprintable()


@seldom
@given(answers(output=pb.Output, tool_call=pb.ToolCall, finished=pb.Finished), st.integers(0, 3))
def a_whole_sandbox_gives_an_execution_or_one_of_two_errors(answered: list[bytes], more: int) -> None:
    def add(*args: Any, **kwargs: Any) -> int:
        """Takes anything."""
        return len(args)

    async def script(peer: Peer) -> None:
        await peer.executing()
        for data in answered:
            await peer.say(data)
        for _ in range(more):
            await peer.hear()

    async def play(scene: Stage) -> None:
        sandbox = scene.sandbox(script, tools=[add], timeout=0.05)
        try:
            async for event in sandbox.stream("1"):
                if isinstance(event, Finished):
                    break
        except BROKEN as error:
            _is_fit_to_be_shown(error)
        finally:
            await sandbox.close()

    in_stage(play, margin=0.1)


@often
@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=20), integers(0, 2**64 - 1))))
def output_is_kept_to_the_byte_and_streamed_to_the_character(pieces: list[tuple[Any, bytes, int]]) -> None:
    log = OutputLog()
    seen = {"stdout": "", "stderr": ""}
    for stream, text, dropped in pieces:
        if event := log.add(pb.Output(stream=stream, text=text, dropped_before=dropped)):
            seen[event.stream] += event.text
    logs = log.logs(0)
    assert logs.raw_stdout == b"".join(text for stream, text, _ in pieces if stream == 1)
    assert logs.raw_stderr == b"".join(text for stream, text, _ in pieces if stream == 2)
    for name, text in (("stdout", logs.stdout), ("stderr", logs.stderr)):
        assert text.startswith(seen[name])
        assert set(text[len(seen[name]) :]) <= {"\ufffd"}  # a character that was never completed


# ---------------------------------------------------------------------------------------------------------- frames

tables = st.sampled_from([FROM_RUNNER, TO_RUNNER, FROM_WARDEN, TO_WARDEN])
kinds = st.sampled_from([0, 1, 255, *FROM_RUNNER, *TO_RUNNER, *FROM_WARDEN, *TO_WARDEN])
a_frame = st.tuples(kinds, st.binary(max_size=40)).map(lambda made: frames.pack(*made))
a_stream = st.lists(a_frame | st.binary(max_size=20), max_size=8).map(b"".join)


def _read(reader: FrameReader, stream: bytes, cuts: list[int]) -> tuple[list[tuple[int, bytes]], str]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    found = []
    try:
        for start, end in pairwise(edges):
            for frame in reader.feed(stream[start:end]):
                found.append(frame)  # what came before a violation is wanted
    except FrameViolation as violation:
        return found, str(violation)
    return found, ""


@often
@given(tables, a_stream, st.lists(st.integers(0, 500), max_size=10))
def frames_are_the_same_wherever_a_stream_is_cut(table: frames.Legal, stream: bytes, cuts: list[int]) -> None:
    whole, in_pieces = FrameReader(table), FrameReader(table)
    found, reason = _read(whole, stream, [])
    assert _read(in_pieces, stream, cuts) == (found, reason)
    for kind, body in found:
        shortest, longest = table[kind]
        assert shortest <= len(body) <= longest
    assert reason or len(in_pieces._buffer) <= HEADER.size + max(longest for _, longest in table.values())


@seldom
@given(a_stream, st.lists(st.integers(0, 500), max_size=5))
def whatever_a_runner_writes_is_told_as_frames_and_one_end(stream: bytes, cuts: list[int]) -> None:
    async def main() -> None:
        it = Pair()
        it.listen()
        try:
            edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
            for start, end in pairwise(edges):
                it.process.sendall(stream[start:end])
                await settled(2)
            it.process.close()
            await settled(10)
        finally:
            it.close()
        frames_told, reason = _read(FrameReader(FROM_RUNNER), stream, [])
        assert it.told[:-1] == frames_told
        assert it.told[-1] == ("closed", f"sent an illegal {reason}" if reason else "closed its channel")

    in_loop(main())


# ------------------------------------------------------------------------------------------------------------- text


@often
@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=80), st.integers(1, 60))
def any_text_is_made_safe_once_and_for_all(text: str, limit: int) -> None:
    safe = sanitise(text)
    assert sanitise(safe) == safe
    line = one_line(text, limit)
    assert line.isprintable()
    assert len(line) <= limit


PROPERTIES = (
    any_value_is_plain_data_or_a_violation,
    any_bytes_are_a_value_or_a_violation,
    any_bytes_are_arguments_or_a_violation,
    what_is_seen_of_a_message_before_it_is_parsed_is_what_protobuf_sees,
    in_any_order_a_session_moves_by_its_table_or_ends_in_a_violation,
    whatever_a_supervisor_finds_is_judged,
    a_whole_sandbox_gives_an_execution_or_one_of_two_errors,
    output_is_kept_to_the_byte_and_streamed_to_the_character,
    frames_are_the_same_wherever_a_stream_is_cut,
    whatever_a_runner_writes_is_told_as_frames_and_one_end,
    any_text_is_made_safe_once_and_for_all,
)


@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda holds: holds.__name__)
def test_for_any_input(holds: Any) -> None:
    holds()
