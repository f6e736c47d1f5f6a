"""What an executor may lie about files, states and branches. A violation or plain data, in time."""

from __future__ import annotations

import math
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import ProtocolViolation, SandboxFileError
from orchestrator.sandbox import files
from orchestrator.sandbox.session import MAX_CHECKPOINTS, MAX_ERROR, MAX_FILE_ENTRIES, MAX_REASON
from tests.hostile.lies import HUGE, NASTY
from tests.hostile.oracle import Act, in_stage, refused
from tests.hostile.peer import Peer, Script, varint
from tests.hostile.stage import Stage

# ----------------------------------------------------------------------------------------------------------- files


def replies(*messages: pb.ExecutorMessage | bytes) -> Script:
    """Answers requests with these, in turn."""

    async def script(peer: Peer) -> None:
        await peer.open()
        for message in messages:
            await peer.hear()
            await peer.say(message)
        while True:
            await peer.hear()

    return script


def file_reply(**fields: Any) -> pb.ExecutorMessage:
    return pb.ExecutorMessage(file_reply=pb.FileReply(**fields))


LYING_PATHS = [
    *(b"../x", b"a/../../x", b"..", b"/etc/passwd", b"/", b"", b".", b"./a", b"a//b", b"a/", b"a/./b"),
    *(b"a\0b", b"x" * 4097),
]


@pytest.mark.parametrize("path", LYING_PATHS, ids=lambda path: ascii(path[:20]))
def test_arc_01_a_listed_path_that_leads_out_of_the_workspace_is_a_violation(path: bytes) -> None:
    entries = [pb.FileEntry(path=b"honest"), pb.FileEntry(path=path)]
    refused(replies(file_reply(entries=entries)), lambda sandbox: sandbox.files.list(), ProtocolViolation, executions=0)


@pytest.mark.parametrize("count", [MAX_FILE_ENTRIES + 1, 1_000_000])
def test_arc_02_more_files_than_there_can_be_are_a_violation(count: int) -> None:
    data = b"\x12\x00" * count
    reply = b"\x32" + varint(len(data)) + data
    refused(replies(reply), lambda sandbox: sandbox.files.list(), ProtocolViolation, executions=0)


def test_names_of_files_are_given_as_the_file_system_has_them() -> None:
    async def play(scene: Stage) -> list[files.FileEntry]:
        reply = file_reply(entries=[pb.FileEntry(path=b"..." + NASTY.replace(b"/", b"|"), size=HUGE)])
        async with scene.sandbox(replies(reply)) as sandbox:
            return await sandbox.files.list()

    (entry,) = in_stage(play)
    assert entry.path.encode("utf-8", "surrogateescape") == b"..." + NASTY.replace(b"/", b"|")


def test_a_piece_that_is_larger_than_asked_for_is_a_violation() -> None:
    reply = file_reply(data=bytes(files.PIECE + 1))
    refused(replies(reply), lambda sandbox: sandbox.files.read("a"), ProtocolViolation, executions=0)


@pytest.mark.parametrize("act", ["read", "write", "list"])
def test_why_a_file_cannot_be_had_is_one_short_line_and_the_sandbox_goes_on(act: str) -> None:
    acts: dict[str, Act] = {
        "read": lambda sandbox: sandbox.files.read("a"),
        "write": lambda sandbox: sandbox.files.write("a", b"x"),
        "list": lambda sandbox: sandbox.files.list(),
    }

    async def play(scene: Stage) -> str:
        async with scene.sandbox(replies(file_reply(error=NASTY * 1000), file_reply())) as sandbox:
            with pytest.raises(SandboxFileError) as caught:
                await acts[act](sandbox)
            assert await sandbox.files.list() == []
            return str(caught.value)

    text = in_stage(play)
    assert text.isprintable()
    assert len(text) < 400


# ---------------------------------------------------------------------------------------------------------- states


def state_reply(**fields: Any) -> pb.ExecutorMessage:
    return pb.ExecutorMessage(state_reply=pb.StateReply(**fields))


def info(**fields: Any) -> pb.CheckpointInfo:
    return pb.CheckpointInfo(**fields)


FORKED = {"branch": 1, "secret": bytes(32), "execution": 0}
LYING_STATES: dict[str, pb.ExecutorMessage] = {
    "no checkpoint": state_reply(),
    "two of them": state_reply(checkpoints=[info(), info()]),
    "too many": state_reply(checkpoints=[info()] * (MAX_CHECKPOINTS + 1)),
    "of an execution that has not been": state_reply(checkpoints=[info(execution=1)]),
    "of the end of time": state_reply(checkpoints=[info(execution=HUGE)]),
    **{f"aged {age}": state_reply(checkpoints=[info(age_seconds=age)]) for age in (math.nan, math.inf, -1.0)},
    "a long reason": state_reply(checkpoints=[info()], files_reason=bytes(MAX_REASON + 1)),
    "a long error": state_reply(error="x" * (MAX_ERROR + 1)),
    "a branch of an execution that has not been": state_reply(
        checkpoints=[info()], forked=pb.Forked(**(FORKED | {"execution": 1}))
    ),
}


@pytest.mark.parametrize("lie", LYING_STATES)
def test_an_answer_about_a_checkpoint_that_cannot_be_is_a_violation(lie: str) -> None:
    refused(replies(LYING_STATES[lie]), lambda sandbox: sandbox.checkpoint("a"), ProtocolViolation, executions=0)


LYING_BRANCHES: dict[str, dict[str, Any]] = {
    "of an execution that has not been": {"execution": 1},
    "of the end of time": {"execution": HUGE},
    "without a secret": {"secret": b""},
    "with a secret of four megabytes": {"secret": bytes((4 << 20) - 200)},
}


@pytest.mark.parametrize("lie", LYING_BRANCHES)
def test_a_branch_that_cannot_be_is_a_violation(lie: str) -> None:
    reply = state_reply(forked=pb.Forked(**(FORKED | LYING_BRANCHES[lie])))
    refused(replies(reply), lambda sandbox: sandbox.fork(), ProtocolViolation, executions=0)


def test_a_branch_that_is_not_mentioned_is_a_violation() -> None:
    refused(replies(state_reply()), lambda sandbox: sandbox.fork(), ProtocolViolation, executions=0)


def test_names_of_checkpoints_are_one_line() -> None:
    async def play(scene: Stage) -> list[str]:
        listed = state_reply(checkpoints=[info(name=NASTY * 100, memory_bytes=HUGE), info(name="ä  b".encode())])
        async with scene.sandbox(replies(listed)) as sandbox:
            return [checkpoint.name for checkpoint in await sandbox.checkpoints()]

    nasty, honest = in_stage(play)
    assert nasty.isprintable()
    assert len(nasty) <= 200
    assert honest == "ä  b"
