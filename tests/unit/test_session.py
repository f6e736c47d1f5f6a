"""The protocol's table on the host: each legal step, and everything else a violation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ProtocolViolation
from orchestrator.sandbox import session as module
from orchestrator.sandbox.session import LEGAL, MAX_EXECUTIONS, Phase, Session

CAP = 1 << 20
KINDS = tuple(pb.ExecutorMessage.DESCRIPTOR.oneofs_by_name["kind"].fields)
OUT, ERR = pb.Output.STREAM_STDOUT, pb.Output.STREAM_STDERR


def in_phase(phase: Phase, cap: int = CAP) -> Session:
    if phase is Phase.ATTACHING:
        return Session(cap, phase, execution=7)
    session = Session(cap)
    if phase is Phase.HELLO:
        return session
    session.receive(pb.ExecutorMessage(challenge=pb.Challenge()))
    if phase is Phase.OPENING:
        return session
    if phase is Phase.RESUMING:
        session.resume()
        return session
    session.receive(pb.ExecutorMessage(ready=pb.Ready()))
    if phase is Phase.EXECUTING:
        session.begin_execution()
    elif phase is Phase.FILES:
        session.begin_file_request()
    elif phase is Phase.STATES:
        session.begin_state_request()
    return session


def executing(cap: int = CAP) -> Session:
    return in_phase(Phase.EXECUTING, cap)


def output(text: bytes = b"x", execution: int = 1, stream: int = OUT) -> pb.ExecutorMessage:
    return pb.ExecutorMessage(output=pb.Output(id=execution, stream=stream, text=text))  # type: ignore[arg-type]


def call(number: int = 1, execution: int = 1, name: bytes = b"tool") -> pb.ExecutorMessage:
    return pb.ExecutorMessage(tool_call=pb.ToolCall(id=execution, call=number, name=name))


def finished(execution: int = 1, status: int = 1, state: int = 1, **fields: Any) -> pb.ExecutorMessage:
    end = pb.Finished(id=execution, status=status, state=state, **fields)  # type: ignore[arg-type]
    return pb.ExecutorMessage(finished=end)


def state_reply(**fields: Any) -> pb.ExecutorMessage:
    return pb.ExecutorMessage(state_reply=pb.StateReply(**fields))


MESSAGES = {
    "challenge": pb.ExecutorMessage(challenge=pb.Challenge()),
    "ready": pb.ExecutorMessage(ready=pb.Ready()),
    "output": output(),
    "tool_call": call(),
    "finished": finished(),
    "file_reply": pb.ExecutorMessage(file_reply=pb.FileReply()),
    "state_reply": state_reply(),
    "attached": pb.ExecutorMessage(attached=pb.Attached()),
    "resumed": pb.ExecutorMessage(resumed=pb.Resumed()),
    "nothing": pb.ExecutorMessage(),
}


def refused(session: Session, message: pb.ExecutorMessage, match: str | None = None) -> None:
    before = session.phase
    with pytest.raises(ProtocolViolation, match=match):
        session.receive(message)
    assert session.phase is before


def test_every_kind_of_message_is_tried_here_and_has_its_place_in_the_table() -> None:
    names = {field.name for field in KINDS}
    assert names == set(MESSAGES) - {"nothing"} == {kind for _, kind in LEGAL}


def test_this_is_the_whole_table() -> None:
    assert LEGAL == {
        (Phase.HELLO, "challenge"): Phase.OPENING,
        (Phase.OPENING, "ready"): Phase.IDLE,
        (Phase.EXECUTING, "output"): Phase.EXECUTING,
        (Phase.EXECUTING, "tool_call"): Phase.EXECUTING,
        (Phase.EXECUTING, "finished"): Phase.IDLE,
        (Phase.FILES, "file_reply"): Phase.IDLE,
        (Phase.STATES, "state_reply"): Phase.IDLE,
        (Phase.ATTACHING, "attached"): Phase.IDLE,
        (Phase.RESUMING, "resumed"): Phase.IDLE,
    }


@pytest.mark.parametrize(("phase", "kind"), sorted(LEGAL, key=str))
def test_a_legal_message_moves_on(phase: Phase, kind: str) -> None:
    session = in_phase(phase)
    assert session.receive(MESSAGES[kind]) == kind
    assert session.phase is LEGAL[phase, kind]


@pytest.mark.parametrize(("phase", "kind"), sorted(set(itertools.product(Phase, MESSAGES)) - set(LEGAL), key=str))
def test_a_message_that_is_not_in_the_table_is_a_violation(phase: Phase, kind: str) -> None:
    refused(in_phase(phase), MESSAGES[kind], f"sent {kind} while {phase.value}")


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.IDLE])
def test_the_host_itself_begins_only_when_idle(phase: Phase) -> None:
    session = in_phase(phase)
    for begin in (session.begin_execution, session.begin_file_request, session.begin_state_request):
        with pytest.raises(RuntimeError, match="may not begin"):
            begin()
    assert session.phase is phase


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.OPENING])
def test_a_session_is_resumed_only_after_the_executor_has_proven_itself(phase: Phase) -> None:
    session = in_phase(phase)
    with pytest.raises(RuntimeError, match="may not resume"):
        session.resume()
    assert session.phase is phase


@pytest.mark.parametrize("last", [0, 1, MAX_EXECUTIONS])
def test_a_resumed_session_counts_on(last: int) -> None:
    session = in_phase(Phase.RESUMING)
    session.receive(pb.ExecutorMessage(resumed=pb.Resumed(last_execution=last)))
    assert session.begin_execution() == last + 1


@pytest.mark.parametrize("last", [MAX_EXECUTIONS + 1, (1 << 64) - 1])
def test_nothing_counts_on_from_where_no_session_can_have_been(last: int) -> None:
    refused(in_phase(Phase.RESUMING), pb.ExecutorMessage(resumed=pb.Resumed(last_execution=last)), "more executions")


def test_executions_count_up_from_one_and_other_requests_do_not_count() -> None:
    session = in_phase(Phase.IDLE)
    for number in (1, 2, 3):
        assert session.begin_execution() == number
        session.receive(finished(number))
        session.begin_file_request()
        session.receive(MESSAGES["file_reply"])
        session.begin_state_request()
        session.receive(MESSAGES["state_reply"])


def test_a_branch_counts_on_from_the_execution_of_its_state() -> None:
    session = in_phase(Phase.ATTACHING)
    session.receive(MESSAGES["attached"])
    assert session.begin_execution() == 8
    refused(session, finished(7), "spoke of execution")
    assert session.receive(finished(8)) == "finished"


def test_going_back_does_not_count_back() -> None:
    session = executing()
    session.receive(finished())
    session.begin_state_request()
    session.receive(state_reply(checkpoints=[pb.CheckpointInfo(execution=0)]))
    assert session.begin_execution() == 2


@pytest.mark.parametrize("message", [output(execution=2), call(execution=0), finished(execution=2)])
def test_another_executions_id_is_a_violation(message: pb.ExecutorMessage) -> None:
    refused(executing(), message, "spoke of execution")


def test_the_id_of_the_execution_before_is_a_violation() -> None:
    session = executing()
    session.receive(finished(1))
    session.begin_execution()
    refused(session, output(execution=1))
    assert session.receive(output(execution=2)) == "output"


def test_a_second_finished_is_a_violation() -> None:
    session = executing()
    session.receive(finished())
    refused(session, finished())


@pytest.mark.parametrize("stream", [0, 3, -1, 2**31 - 1])
def test_a_stream_out_of_range_is_a_violation(stream: int) -> None:
    refused(executing(), output(stream=stream))


@pytest.mark.parametrize(("status", "state"), [(0, 1), (9, 1), (-1, 1), (1, 0), (1, 4), (1, -1), (2**31 - 1, 1)])
def test_a_status_or_state_out_of_range_is_a_violation(status: int, state: int) -> None:
    refused(executing(), finished(status=status, state=state))


def test_every_status_and_state_of_the_wire_is_legal() -> None:
    for status in pb.Finished.Status.values():
        for state in pb.Finished.State.values():
            if status and state:
                assert executing().receive(finished(status=status, state=state)) == "finished"


def test_one_piece_of_output_has_a_bound() -> None:
    assert executing().receive(output(bytes(module.MAX_OUTPUT_TEXT))) == "output"
    refused(executing(), output(bytes(module.MAX_OUTPUT_TEXT + 1)))


def test_output_over_the_cap_is_a_violation_and_counts_both_streams() -> None:
    session = executing(cap=1024)
    session.receive(output(bytes(1024)))
    session.receive(output(bytes(module.OUTPUT_SLACK), stream=ERR))
    refused(session, output(b"x"), "more output than its cap")


def test_the_cap_is_for_each_execution() -> None:
    session = executing(cap=1024)
    for number in (1, 2, 3):
        session.receive(output(bytes(1024 + module.OUTPUT_SLACK), number))
        session.receive(finished(number))
        session.begin_execution()


def test_an_empty_piece_of_output_is_illegal() -> None:
    refused(executing(), output(b""), "illegal piece of output")


def test_a_call_number_is_used_once_in_an_execution() -> None:
    session = executing()
    session.receive(call(1))
    session.receive(call(2))
    refused(session, call(1), "illegal tool call")
    session.receive(finished())
    session.begin_execution()
    assert session.receive(call(1, execution=2)) == "tool_call"


def test_a_tool_name_has_a_bound() -> None:
    assert executing().receive(call(name=bytes(module.MAX_TOOL_NAME))) == "tool_call"
    refused(executing(), call(name=bytes(module.MAX_TOOL_NAME + 1)))


def test_an_outcome_has_a_bound() -> None:
    assert executing().receive(finished(outcome=bytes(module.MAX_OUTCOME))) == "finished"
    refused(executing(), finished(outcome=bytes(module.MAX_OUTCOME + 1)))


def test_a_list_of_files_has_a_bound() -> None:
    entry = pb.FileEntry(path=b"a", size=1)
    full = pb.FileReply(entries=[entry] * module.MAX_FILE_ENTRIES)
    assert in_phase(Phase.FILES).receive(pb.ExecutorMessage(file_reply=full)) == "file_reply"
    full.entries.add().CopyFrom(entry)
    refused(in_phase(Phase.FILES), pb.ExecutorMessage(file_reply=full), "more files")


def test_a_list_of_checkpoints_has_a_bound() -> None:
    full = [pb.CheckpointInfo(number=1)] * module.MAX_CHECKPOINTS
    assert in_phase(Phase.STATES).receive(state_reply(checkpoints=full)) == "state_reply"
    refused(in_phase(Phase.STATES), state_reply(checkpoints=[*full, pb.CheckpointInfo()]), "about states")


@pytest.mark.parametrize(
    ("phase", "message"),
    [(Phase.STATES, state_reply), (Phase.EXECUTING, finished)],
    ids=["of going back", "of an execution"],
)
def test_why_files_were_kept_has_a_bound(phase: Phase, message: Callable[..., pb.ExecutorMessage]) -> None:
    assert in_phase(phase).receive(message(files_reason=bytes(module.MAX_REASON)))
    refused(in_phase(phase), message(files_reason=bytes(module.MAX_REASON + 1)), "illegal")


@pytest.mark.parametrize("state", [pb.Finished.STATE_KEPT, pb.Finished.STATE_RESTORED])
def test_a_state_that_nothing_holds_is_lost(state: int) -> None:
    refused(in_phase(Phase.EXECUTING), finished(state=state, spent=True), "nothing that holds it")
    assert in_phase(Phase.EXECUTING).receive(finished(state=pb.Finished.STATE_LOST, spent=True))


def test_why_an_execution_ended_has_a_bound() -> None:
    assert in_phase(Phase.EXECUTING).receive(finished(reason="x" * module.MAX_REASON))
    refused(in_phase(Phase.EXECUTING), finished(reason="x" * (module.MAX_REASON + 1)), "illegal")


def test_why_something_was_not_done_has_a_bound() -> None:
    assert in_phase(Phase.STATES).receive(state_reply(error="x" * module.MAX_ERROR))
    refused(in_phase(Phase.STATES), state_reply(error="x" * (module.MAX_ERROR + 1)), "illegal")


@pytest.mark.parametrize("restored_to", [0, 1, 2])
def test_an_execution_goes_back_to_one_that_has_been(restored_to: int) -> None:
    session = executing()
    session.receive(finished())
    session.begin_execution()
    assert session.receive(finished(2, status=7, state=2, restored_to=restored_to)) == "finished"


@pytest.mark.parametrize("restored_to", [3, 1 << 63, (1 << 64) - 1])
def test_an_execution_that_goes_back_to_one_that_has_not_been_is_illegal(restored_to: int) -> None:
    session = executing()
    session.receive(finished())
    session.begin_execution()
    refused(session, finished(2, status=7, state=2, restored_to=restored_to), "illegal end")


@settings(max_examples=150)
@given(st.binary(max_size=200), st.sampled_from(Phase))
def test_whatever_parses_is_legal_or_a_violation(data: bytes, phase: Phase) -> None:
    message = pb.ExecutorMessage()
    try:
        message.ParseFromString(data)
    except Exception:  # noqa: BLE001 - not a message at all: gRPC refuses it before the session sees it
        return
    session = in_phase(phase)
    try:
        kind = session.receive(message)
    except ProtocolViolation:
        assert session.phase is phase
    else:
        assert session.phase is LEGAL[phase, kind]
