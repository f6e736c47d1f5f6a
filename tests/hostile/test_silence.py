"""PRO-08: an executor that falls silent, drips, or goes away, at any moment, is waited for so long and no longer."""

from __future__ import annotations

import asyncio

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import CheckpointError, ProtocolViolation, SandboxDied, SandboxError, SandboxStartError
from orchestrator.sandbox import AsyncSandbox
from tests.hostile.oracle import Act, in_stage, refused
from tests.hostile.peer import Peer, Script, asked, finished, in_executing, in_hello, in_opening, output
from tests.hostile.stage import SHORT_MARGIN, Stage

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
    text = refused(script, error=SandboxStartError, executions=0, start_timeout=3.0)
    assert "did not come up within 3 s" in text


@pytest.mark.parametrize(
    "script", [after_ready, after_the_code, after_some_output, with_signs_of_life], ids=lambda s: s.__name__
)
def test_pro_08_who_falls_silent_while_code_runs_has_died(script: Script) -> None:
    sent = 0 if script is after_ready else 1
    text = refused(script, error=SandboxDied, executions=sent, margin=SHORT_MARGIN)
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

    assert "reset" in refused(with_signs_of_life, leave, SandboxDied, margin=SHORT_MARGIN)


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
