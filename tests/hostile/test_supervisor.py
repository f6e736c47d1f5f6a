"""What a hostile runner may write to the supervisor: its execution's books stay true, and it never fails itself."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from executor_api.v1 import executor_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from executor_image import frames
from executor_image.frames import CALL_HEAD, FROM_RUNNER
from executor_image.supervisor.executing import Executing
from executor_image.supervisor.outbox import Outbox
from executor_image.supervisor.proc import Reading
from orchestrator.sandbox.session import Phase, Session
from tests.hostile.test_properties import often
from tests.unit.loops import in_loop

CAP = 2048
RIGHT, WRONG = b"right", b"wrong"  # nonces, put in when the execution has drawn its own


class Owner:
    """A branch, as far as its execution sees it; writes down what it is told."""

    def __init__(self) -> None:
        self.outbox = Outbox(lambda pressed: None)
        self.tree = SimpleNamespace(
            head=SimpleNamespace(pid=os.getpid(), send=lambda *parts: None),
            thaw=lambda: None,
            advance=lambda execution: None,
            signal=lambda number: None,
        )
        self.spent = False
        self.faults: list[str] = []
        self.kills = 0
        self.executing: Executing | None = None

    def kill(self) -> None:
        self.kills += 1

    def fault(self, reason: str) -> None:
        """As ``Session.fault``: what follows of it is not listened to."""
        self.faults.append(reason)
        assert self.executing
        if self.executing.running:
            self.executing.running.killed = True

    def drain(self) -> None: ...

    def has_threads(self) -> bool:
        return False

    def on_result(self) -> None: ...


def executing(final_answer: bool) -> tuple[Executing, Owner]:
    """An execution that has begun."""
    owner = Owner()
    container: Any = SimpleNamespace(
        opened=pb.Open(output_bytes=CAP, final_answer=final_answer, grace_seconds=1),
        cgroup=SimpleNamespace(read=lambda: Reading(0.0, 0)),
        watch_memory=lambda: None,
        is_watched=lambda: True,
        over="",
    )
    owner.executing = made = Executing(container, owner)  # type: ignore[arg-type]
    made.start(pb.Execute(id=1, code=b"", timeout_seconds=60))
    return made, owner


nonces = st.sampled_from([RIGHT, RIGHT, RIGHT, WRONG])
numbers = st.integers(0, 4)
Frame = tuple[int, bytes, bytes]  # type, nonce if it has one, the rest of the body

a_call = st.tuples(
    st.just(frames.TOOL_CALL),
    nonces,
    st.tuples(numbers, st.integers(0, 300), st.binary(max_size=20)).map(
        lambda parts: CALL_HEAD.pack(bytes(16), parts[0], parts[1])[16:] + parts[2]
    ),
)
a_result = st.tuples(
    st.just(frames.RESULT),
    nonces,
    st.tuples(st.integers(0, 4), st.binary(max_size=20)).map(lambda parts: bytes([parts[0]]) + parts[1]),
)
an_answer = st.tuples(st.just(frames.FINAL), nonces, st.binary(max_size=20))
written = st.tuples(
    st.sampled_from([frames.STDOUT, frames.STDERR]),
    st.just(b""),
    st.binary(min_size=1, max_size=300) | st.just(b"x" * 60_000),
)
other = st.tuples(st.sampled_from(sorted(FROM_RUNNER)), st.just(b""), st.binary(max_size=40))


def _body(frame: Frame, nonce: bytes) -> bytes:
    _, own, rest = frame
    return {RIGHT: nonce, WRONG: bytes(16), b"": b""}[own] + rest


def _is_legal(kind: int, body: bytes) -> bool:
    """Others do not come through a ``FrameReader``."""
    shortest, longest = FROM_RUNNER[kind]
    return shortest <= len(body) <= longest


async def _sent(owner: Owner) -> list[pb.ExecutorMessage]:
    sent = []
    while owner.outbox._items:
        sent.append(await owner.outbox.get())
    return sent


@often
@given(st.lists(a_call | a_result | an_answer | written | other, max_size=20), st.booleans())
def a_runner_says_what_it_likes(told: list[Frame], final_answer: bool) -> None:
    async def main() -> None:
        execution, owner = executing(final_answer)
        assert execution.running
        nonce = execution.running.nonce
        for frame in told:
            body = _body(frame, nonce)
            if _is_legal(frame[0], body):
                execution.on_frame(frame[0], body)
        sent = await _sent(owner)
        _is_true(sent, told, final_answer)
        execution.abandon()

    in_loop(main())


def _is_true(sent: list[pb.ExecutorMessage], told: list[Frame], final_answer: bool) -> None:
    """Whatever it said, its host is sent what its host allows, ended at most once, by a frame with the right nonce."""
    session = Session(CAP, Phase.IDLE)
    session.begin_execution()
    for message in sent:
        session.read(message.SerializeToString())  # or it is a violation, for which the supervisor would be to blame
    ends = [message.finished for message in sent if message.HasField("finished")]
    assert len(ends) <= 1
    for end in ends:
        assert any(kind == frames.RESULT and nonce == RIGHT for kind, nonce, _ in told)
        assert final_answer or not end.final_answer
        assert end.usage.output_bytes >= sum(len(message.output.text) for message in sent)


PROPERTIES = (a_runner_says_what_it_likes,)


def test_for_any_frames_of_a_runner() -> None:
    a_runner_says_what_it_likes()
