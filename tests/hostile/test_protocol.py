"""PRO-*: an executor that breaks the protocol is found out at once, told as what it is, and gets nothing again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import CheckpointError, ProtocolViolation, SandboxDied, SandboxError, SandboxStartError
from orchestrator.sandbox import AsyncSandbox
from orchestrator.sandbox.session import LEGAL, MAX_SIZES, Phase
from tests.hostile.oracle import Act, in_stage, refused, run_code
from tests.hostile.peer import Peer, Script, Speaker, called, finished, honest, output
from tests.hostile.stage import Stage
from tests.unit.peers import until

EMPTY: dict[str, pb.ExecutorMessage] = {
    "challenge": pb.ExecutorMessage(challenge=pb.Challenge()),
    "ready": pb.ExecutorMessage(ready=pb.Ready()),
    "output": output(1),
    "tool_call": called(1),
    "finished": finished(1),
    "file_reply": pb.ExecutorMessage(file_reply=pb.FileReply()),
    "attached": pb.ExecutorMessage(attached=pb.Attached()),
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


async def in_hello(peer: Peer) -> None:
    await peer.hear()


async def in_opening(peer: Peer) -> None:
    await peer.say(peer.challenge((await peer.hear()).hello))
    await peer.hear()


async def in_idle(peer: Peer) -> None:
    await peer.executing()
    await peer.say(finished(1))


async def in_executing(peer: Peer) -> None:
    await peer.executing()


async def asked(peer: Peer) -> None:
    await peer.open()
    await peer.hear()


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


def test_every_phase_but_that_of_a_branch_is_here() -> None:
    assert {*WAYS, Phase.ATTACHING} == set(Phase)
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


# --------------------------------------------------------------------------------------------------------- silence


async def never(peer: Peer) -> None:
    await peer.stall()


async def after_hello(peer: Peer) -> None:
    await peer.hear()
    await peer.stall()


async def after_challenge(peer: Peer) -> None:
    await in_opening(peer)
    await peer.stall()


async def after_ready(peer: Peer) -> None:
    await peer.open()
    await peer.stall()


async def after_the_code(peer: Peer) -> None:
    await peer.executing()
    await peer.stall()


async def after_some_output(peer: Peer) -> None:
    await peer.say(output(await peer.executing()))
    await peer.stall()


async def with_signs_of_life(peer: Peer) -> None:
    """Hears everything, and never ends."""
    await peer.say(output(await peer.executing()))
    while True:
        await peer.hear()


@pytest.mark.parametrize("script", [never, after_hello, after_challenge], ids=lambda script: script.__name__)
def test_pro_08_who_falls_silent_while_it_starts_has_failed_to_start(script: Script) -> None:
    text = refused(script, error=SandboxStartError, executions=0, start_timeout=1.0)
    assert "did not come up within 1 s" in text


@pytest.mark.parametrize(
    "script", [after_ready, after_the_code, after_some_output, with_signs_of_life], ids=lambda s: s.__name__
)
def test_pro_08_who_falls_silent_while_code_runs_has_died(script: Script) -> None:
    sent = 0 if script is after_ready else 1
    text = refused(script, error=SandboxDied, executions=sent)
    assert "did not answer in time" in text


REQUESTS: dict[str, Act] = {
    "files.list": lambda sandbox: sandbox.files.list(),
    "files.read": lambda sandbox: sandbox.files.read("a"),
    "files.write": lambda sandbox: sandbox.files.write("a", b"x"),
    "checkpoint": lambda sandbox: sandbox.checkpoint(),
    "rollback": lambda sandbox: sandbox.rollback(0),
    "undo": lambda sandbox: sandbox.undo(),
    "drop": lambda sandbox: sandbox.drop("a"),
    "fork": lambda sandbox: sandbox.fork(),
    "checkpoints": lambda sandbox: sandbox.checkpoints(),
}


@pytest.mark.parametrize("request_", REQUESTS)
def test_pro_08_who_does_not_answer_a_request_has_died(request_: str, short_requests: None) -> None:
    refused(after_ready, REQUESTS[request_], SandboxDied, executions=0)


@pytest.mark.parametrize("request_", REQUESTS)
def test_pro_08_who_goes_away_at_a_request_has_died(request_: str) -> None:
    refused(asked, REQUESTS[request_], SandboxDied, executions=0)


def test_pro_08_who_drips_a_file_piece_by_piece_is_not_waited_for_for_ever(short_requests: None) -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        while True:
            await peer.hear()
            await asyncio.sleep(0.05)  # its own pace: each piece comes in time
            await peer.say(pb.ExecutorMessage(file_reply=pb.FileReply(data=bytes(1 << 20))))

    refused(script, lambda sandbox: sandbox.files.read("endless"), SandboxDied, executions=0)


def test_an_execution_that_nobody_waits_for_any_more_does_not_hang_on_one_that_goes_on() -> None:
    async def leave(sandbox: AsyncSandbox) -> None:
        events = sandbox.stream("1")
        await anext(events)
        await events.aclose()
        await sandbox.run_code("2")

    assert "reset" in refused(with_signs_of_life, leave, SandboxDied)


# ---------------------------------------------------------------------------------------------------------- the end


async def at_once(peer: Peer) -> None:
    return


async def after_proving(peer: Peer) -> None:
    await in_opening(peer)


@pytest.mark.parametrize("script", [at_once, in_hello, after_proving], ids=lambda script: script.__name__)
def test_pro_08_who_goes_away_while_it_starts_has_failed_to_start(script: Script) -> None:
    refused(script, error=SandboxStartError, executions=0)


def test_pro_08_who_goes_away_with_the_code_has_died_and_the_code_is_not_sent_again() -> None:
    text = refused(in_executing, error=SandboxDied)
    assert "ended" in text


def test_pro_08_who_goes_away_before_the_code_is_never_sent_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()

    async def later(sandbox: AsyncSandbox) -> None:
        await sandbox.start()
        link = sandbox._link
        assert link
        await link.channel._reading  # the end has come
        await sandbox.run_code("1")

    refused(script, later, SandboxDied, executions=0)


def test_what_is_refused_of_a_checkpoint_is_no_failure_of_the_sandbox() -> None:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.hear()
        await peer.say(pb.ExecutorMessage(state_reply=pb.StateReply(missing=True)))
        assert (await peer.hear()).HasField("execute")
        await peer.say(finished(1))
        await peer.stall()

    async def play(scene: Stage) -> None:
        async with scene.sandbox(script) as sandbox:
            with pytest.raises(CheckpointError):
                await sandbox.rollback("a")
            assert (await sandbox.run_code("1")).ok

    in_stage(play)


def test_every_failure_of_an_executor_is_of_one_family() -> None:
    assert {SandboxDied, ProtocolViolation, SandboxStartError} <= set(SandboxError.__subclasses__())
