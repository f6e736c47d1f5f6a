"""PRO-*: an executor that breaks the protocol is found out at once, told as what it is, and gets nothing again."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import ProtocolViolation, SandboxStartError
from orchestrator.sandbox import AsyncSandbox
from orchestrator.sandbox.session import LEGAL, MAX_SIZES, Phase
from tests.hostile.oracle import Act, in_stage, refused, run_code
from tests.hostile.peer import (
    Peer,
    Script,
    Speaker,
    asked,
    called,
    finished,
    honest,
    in_executing,
    in_hello,
    in_opening,
    output,
)
from tests.hostile.stage import Stage
from tests.unit.loops import until

EMPTY: dict[str, pb.ExecutorMessage] = {
    "challenge": pb.ExecutorMessage(challenge=pb.Challenge()),
    "ready": pb.ExecutorMessage(ready=pb.Ready()),
    "output": output(1),
    "tool_call": called(1),
    "finished": finished(1),
    "file_reply": pb.ExecutorMessage(file_reply=pb.FileReply()),
    "attached": pb.ExecutorMessage(attached=pb.Attached()),
    "resumed": pb.ExecutorMessage(resumed=pb.Resumed()),
    "state_reply": pb.ExecutorMessage(state_reply=pb.StateReply(checkpoints=[pb.CheckpointInfo()])),
    "nothing": pb.ExecutorMessage(),
}
GARBAGE = {
    "noise": b"\xff" * 100,
    "a text": b"HTTP/1.1 200 OK\r\n\r\n",
    "cut off": finished(1).SerializeToString()[:-1],
    "a length beyond the end": b"\x2a\xff\xff\xff\xff\x0f",
    "a length that does not end": b"\x2a" + b"\xff" * 20,
    "a group": b"\x2b\x2c",
    "two kinds at once": EMPTY["output"].SerializeToString() + finished(1).SerializeToString(),
    "the same kind twice": finished(1).SerializeToString() * 2,
    "an unknown kind": b"\x9a\x06\x00",
    "an unknown field beside": finished(1).SerializeToString() + b"\x9a\x06\x04abcd",
    "a number in place of a message": b"\x28\x01",
    "1 MB of unknown fields": b"\xf8\x06\x01" * 350_000,
    "1 MB of unknown fields inside": pb.ExecutorMessage(
        output=pb.Output.FromString(EMPTY["output"].output.SerializeToString() + b"\xf8\x06\x01" * 350_000)
    ).SerializeToString(),
    "bad UTF-8 in a text": finished(1, reason="ab").SerializeToString().replace(b"ab", b"\xff\xfe"),
}


def sends(message: pb.ExecutorMessage | bytes, *more: pb.ExecutorMessage | bytes) -> Script:
    """Answers the first code with just this, and then with nothing."""

    async def script(peer: Speaker) -> None:
        await peer.executing()
        for each in (message, *more):
            await peer.say(each)
        await peer.hear()

    return script


@pytest.mark.parametrize("what", GARBAGE)
def test_pro_04_what_is_no_message_is_a_violation(what: str) -> None:
    refused(sends(GARBAGE[what]), error=ProtocolViolation)


# ------------------------------------------------------------------------------------------- each message in each phase


async def in_idle(peer: Peer) -> None:
    await peer.executing()
    await peer.say(finished(1))


async def in_attaching(peer: Peer) -> None:
    await peer.hear()


async def twice(sandbox: AsyncSandbox) -> None:
    """The second time when something has come between."""
    await sandbox.run_code("1")
    link = sandbox._link
    assert link
    await until(lambda: link.channel._inbox.failure or not link.channel._inbox.is_empty)
    await sandbox.run_code("2")


# How an executor gets into each phase, and what the caller does meanwhile.
WAYS: dict[Phase, tuple[Callable[[Peer], Awaitable[None]], Act]] = {
    Phase.HELLO: (in_hello, run_code),
    Phase.OPENING: (in_opening, run_code),
    Phase.IDLE: (in_idle, twice),
    Phase.EXECUTING: (in_executing, run_code),
    Phase.FILES: (asked, lambda sandbox: sandbox.files.list()),
    Phase.STATES: (asked, lambda sandbox: sandbox.checkpoints()),
}


def test_every_phase_but_those_of_further_streams_is_here() -> None:
    assert {*WAYS, Phase.ATTACHING, Phase.RESUMING} == set(Phase)  # the last is in tests/unit/test_channel.py
    assert set(EMPTY) - {"nothing"} == set(MAX_SIZES) == {kind for _, kind in LEGAL}


@pytest.mark.parametrize(
    ("phase", "kind"),
    [pair for pair in itertools.product(WAYS, EMPTY) if pair not in LEGAL],
    ids=lambda part: part.value if isinstance(part, Phase) else part,
)
def test_pro_05_a_message_that_has_no_place_in_the_phase_is_a_violation(phase: Phase, kind: str) -> None:
    arrive, act = WAYS[phase]

    async def script(peer: Peer) -> None:
        await arrive(peer)
        await peer.say(EMPTY[kind])
        await peer.hear()

    executions = 1 if phase in (Phase.IDLE, Phase.EXECUTING) else 0
    text = refused(script, act, ProtocolViolation, executions)
    assert kind in text or "while nothing was asked" in text or "cannot be read" in text


@pytest.mark.parametrize("kind", [kind for kind in EMPTY if kind != "attached"])
def test_pro_05_a_branch_that_answers_otherwise_is_a_violation(kind: str) -> None:
    forked = pb.Forked(branch=1, secret=bytes(32))

    async def script(peer: Peer) -> None:
        if peer.streams == 1:
            await peer.open()
            await peer.hear()
            await peer.say(pb.ExecutorMessage(state_reply=pb.StateReply(forked=forked)))
            await peer.stall()
        await peer.hear()
        await peer.say(EMPTY[kind])
        await peer.hear()

    refused(script, lambda sandbox: sandbox.fork(), ProtocolViolation, executions=0, streams=2)


@pytest.mark.parametrize(
    "messages",
    [
        [finished(1), finished(1)],
        [finished(1), output(1)],
        [finished(1), called(1)],
        [finished(1), finished(2)],  # of code that has not been sent yet
        [finished(1), output(2)],
    ],
    ids=["two ends", "output after the end", "a call after the end", "an answer before the code", "output before it"],
)
def test_pro_05_what_comes_after_the_end_is_a_violation_and_the_next_code_is_not_sent(
    messages: list[pb.ExecutorMessage],
) -> None:
    refused(sends(*messages), twice, ProtocolViolation)


@pytest.mark.parametrize(
    "message", [output(2), output(0), called(2), finished(2), finished(0), finished((1 << 64) - 1)]
)
def test_xsn_04_what_is_said_of_another_execution_is_a_violation(message: pb.ExecutorMessage) -> None:
    assert "spoke of execution" in refused(sends(message), error=ProtocolViolation)


# ------------------------------------------------------------------------------------------------ who it says it is


def begins(answer: Callable[[Speaker, pb.Hello], pb.ExecutorMessage]) -> Script:
    async def script(peer: Peer) -> None:
        await peer.say(answer(peer, (await peer.hear()).hello))
        await peer.hear()

    return script


FALSE_PROOFS: dict[str, Callable[[Speaker, pb.Hello], pb.ExecutorMessage]] = {
    "none": lambda peer, hello: peer.challenge(hello, proof=b""),
    "noise": lambda peer, hello: peer.challenge(hello, proof=bytes(32)),
    "too long": lambda peer, hello: peer.challenge(hello, proof=bytes(900)),
    "of another nonce of its own": lambda peer, hello: peer.challenge(hello, executor_nonce=b"other"),
    "of another nonce of the host's": lambda peer, hello: peer.challenge(pb.Hello(host_nonce=bytes(32))),
    "the host's own, sent back": lambda peer, hello: peer.challenge(hello, proof=hello.host_nonce),
}


@pytest.mark.parametrize("how", FALSE_PROOFS)
def test_pro_07_who_cannot_prove_the_token_is_never_told_anything(how: str) -> None:
    text = refused(begins(FALSE_PROOFS[how]), error=SandboxStartError, executions=0, said=["hello"])
    assert "does not know this session's token" in text


def test_pro_07_a_recording_of_another_session_opens_nothing() -> None:
    tape: list[pb.ExecutorMessage] = []

    async def recorded(peer: Peer) -> None:
        say = peer.say

        async def taped(message: Any) -> None:
            tape.append(message)
            await say(message)

        peer.say = taped  # type: ignore[method-assign]
        await honest(peer)

    async def record(scene: Stage) -> None:
        async with scene.sandbox(recorded) as sandbox:
            await sandbox.run_code("1")

    in_stage(record)
    assert [message.WhichOneof("kind") for message in tape] == ["challenge", "ready", "finished"]

    async def replay(peer: Peer) -> None:
        await peer.hear()
        for message in tape:
            await peer.say(message)
        await peer.hear()

    refused(replay, error=SandboxStartError, executions=0, said=["hello"])


@pytest.mark.parametrize("version", [0, 2, (1 << 32) - 1])
def test_pro_10_another_version_is_refused_by_its_number(version: int) -> None:
    answer = begins(lambda peer, hello: peer.challenge(hello, protocol_version=version))
    text = refused(answer, error=SandboxStartError, executions=0, said=["hello"])
    assert f"version {version} of the protocol, not 1" in text


def test_pro_10_a_sandbox_that_opens_with_the_answer_to_a_challenge_is_refused() -> None:
    async def script(peer: Peer) -> None:
        await peer.hear()
        await peer.say(peer.ready())
        await peer.hear()

    refused(script, error=ProtocolViolation, executions=0, said=["hello"])
