"""Checkpoints as the host knows them: which one is meant, what may be a name, and what an executor says of them."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from executor_api.v1 import executor_pb2 as pb
from executor_api.v1 import executor_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import CheckpointError, ProtocolViolation, SandboxDied
from orchestrator.events import Files
from orchestrator.sandbox import state
from orchestrator.sandbox.channel import Channel
from orchestrator.sandbox.execution import MAX_REASON_SHOWN
from orchestrator.sandbox.folders import SOCKET_NAME
from orchestrator.sandbox.link import Link
from orchestrator.sandbox.session import Phase, Session
from orchestrator.sandbox.state import Checkpoint, Rollback, checkpoint_of, name_bytes, only, rollback_of, target
from tests.unit.apart import ordinary_folder
from tests.unit.loops import in_loop

HERE = "container of these"

# ------------------------------------------------------------------------------------------------------ what is meant


@pytest.mark.parametrize(
    ("which", "meant"),
    [
        (Checkpoint(7, "name", 3, container=HERE), pb.Target(number=7)),
        (Checkpoint(7, "", 0, container=HERE), pb.Target(number=7)),
        ("name", pb.Target(name=b"name")),
        ("Grüße, 世界 🌍", pb.Target(name="Grüße, 世界 🌍".encode())),
        ("3", pb.Target(name=b"3")),
        (3, pb.Target(execution=3)),
        (0, pb.Target(execution=0)),
        ((1 << 64) - 1, pb.Target(execution=(1 << 64) - 1)),
    ],
    ids=repr,
)
def test_a_checkpoint_is_meant_by_itself_by_its_name_or_by_an_execution(which: Any, meant: pb.Target) -> None:
    assert target(which, HERE) == meant
    assert target(which, HERE).WhichOneof("kind") == meant.WhichOneof("kind")  # also where the number is 0


@pytest.mark.parametrize("which", [True, False, None, 1.0, b"name", [1], ("a",), object(), Rollback, pb.Target()])
def test_what_can_mean_no_checkpoint_is_a_type_error(which: Any) -> None:
    with pytest.raises(TypeError, match=f"name or an execution's count is needed, not {type(which).__name__}"):
        target(which, HERE)


@pytest.mark.parametrize("elsewhere", ["", "another"])
def test_a_checkpoint_of_another_container_is_not_to_be_had_by_its_number(elsewhere: str) -> None:
    for which in (Checkpoint(7, "name", 3, container=elsewhere), Checkpoint(7, "name", 3)):
        with pytest.raises(CheckpointError, match=r"'name' \(execution 3\) is gone, or is another sandbox's"):
            target(which, HERE)
    with pytest.raises(CheckpointError):
        target(Checkpoint(7, "name", 3, container=HERE), elsewhere)


@pytest.mark.parametrize("which", [-1, 1 << 64, -(1 << 200)])
def test_a_count_that_no_execution_can_have_is_of_no_checkpoint(which: int) -> None:
    with pytest.raises(CheckpointError, match=f"there is no checkpoint of execution {which}"):
        target(which, HERE)


@pytest.mark.parametrize("name", ["", " ", "a" * state.MAX_NAME, "ü" * (state.MAX_NAME // 2), "'\"\\ {}", "-1"])
def test_what_can_be_printed_may_be_a_name(name: str) -> None:
    assert name_bytes(name) == name.encode()


@pytest.mark.parametrize(
    "name",
    ["a" * (state.MAX_NAME + 1), "ü" * (state.MAX_NAME // 2 + 1), "a\nb", "\0", "\x1b[2J", "\ud800", "\u202e", "\x7f"],
    ids=ascii,
)
def test_what_is_too_long_or_cannot_be_printed_is_no_name(name: str) -> None:
    for refused in (name_bytes, lambda name: target(name, HERE)):
        with pytest.raises(CheckpointError, match="is no name of a checkpoint: at most 200 bytes") as caught:
            refused(name)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", [None, 3, b"name", Checkpoint(1, "name", 1)])
def test_a_name_is_a_str(name: Any) -> None:
    with pytest.raises(TypeError, match=f"must be a str, not {type(name).__name__}"):
        name_bytes(name)


@settings(max_examples=100)
@given(st.text(max_size=250))
def test_any_text_is_a_name_or_none(name: str) -> None:
    try:
        sent = name_bytes(name)
    except CheckpointError:
        assert not name.isprintable() or len(name.encode("utf-8", "surrogatepass")) > state.MAX_NAME
    else:
        assert len(sent) <= state.MAX_NAME
        assert checkpoint_of(pb.CheckpointInfo(name=sent), HERE).name == name


# -------------------------------------------------------------------------------------------------- what is said of it


def test_what_is_listed_is_told_whole() -> None:
    info = pb.CheckpointInfo(
        number=5,
        name=b"clean",
        execution=3,
        has_parent=True,
        parent=2,
        age_seconds=1.5,
        memory_bytes=4096,
        has_files=True,
        current=True,
    )
    told = checkpoint_of(info, HERE)
    assert told == Checkpoint(5, "clean", 3, 2, 1.5, 4096, has_files=True, is_current=True, container=HERE)
    assert target(told, HERE) == pb.Target(number=5)
    first = checkpoint_of(pb.CheckpointInfo(number=1, parent=9), "")  # the wire's 0 and nothing are not the same here
    assert first == Checkpoint(1, "", 0, None, 0.0, 0, has_files=False, is_current=False)
    follows_the_first = checkpoint_of(pb.CheckpointInfo(number=2, execution=1, has_parent=True), HERE)
    assert follows_the_first.follows == 0


@pytest.mark.parametrize(
    ("checkpoint", "text"),
    [(Checkpoint(1, "a", 2), "'a' (execution 2)"), (Checkpoint(1, "", 2), "execution 2"), (Checkpoint(1, "'", 0), '"')],
)
def test_a_checkpoint_is_shown_by_its_name_and_its_execution(checkpoint: Checkpoint, text: str) -> None:
    assert text in str(checkpoint)


@settings(max_examples=100)
@given(st.binary(max_size=400), st.integers(0, (1 << 64) - 1), st.floats())
def test_whatever_an_executor_says_becomes_plain_text_and_numbers(name: bytes, number: int, age: float) -> None:
    info = pb.CheckpointInfo(name=name, execution=number, parent=number, memory_bytes=number, age_seconds=age)
    told = checkpoint_of(info, HERE)
    assert (told.execution_count, told.memory_bytes) == (number, number)
    assert told.age == age or math.isnan(age)
    assert told.name.isprintable()
    assert str(told).isprintable()
    assert len(told.name) <= MAX_REASON_SHOWN


@pytest.mark.parametrize("number", [0, 2, 256])
def test_an_answer_is_about_one_checkpoint(number: int) -> None:
    reply = pb.StateReply(checkpoints=[pb.CheckpointInfo()] * number)
    for read in (only, lambda reply: rollback_of(reply, HERE)):
        with pytest.raises(ProtocolViolation, match="another number of checkpoints than one"):
            read(reply)


def test_what_became_of_the_files_is_told() -> None:
    info = pb.CheckpointInfo(number=1, execution=2)
    restored = rollback_of(pb.StateReply(checkpoints=[info], files_restored=True), HERE)
    assert restored == Rollback(checkpoint_of(info, HERE), Files.RESTORED, "")
    hostile = b"the workspace is too \x1b[2J large\n\xff"
    kept = rollback_of(pb.StateReply(checkpoints=[info], files_reason=hostile), HERE)
    assert (kept.files, kept.files_reason) == (Files.KEPT, "the workspace is too large �")


def test_a_reason_is_one_line_of_a_bounded_length() -> None:
    reply = pb.StateReply(checkpoints=[pb.CheckpointInfo()], files_reason=b"line\n" * 1000)
    assert rollback_of(reply, HERE).files_reason == ("line " * 1000)[: MAX_REASON_SHOWN - 1] + "…"


# ----------------------------------------------------------------------------------------------- asking an executor


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the executor's socket is."""
    with ordinary_folder() as folder:
        yield folder


SILENCE = pb.ExecutorMessage()


class Executor(executor_pb2_grpc.ExecutorServicer):
    """A real server of the protocol, which says what it is told to."""

    def __init__(self, answers: list[pb.ExecutorMessage]) -> None:
        self.asked: list[pb.HostMessage] = []
        self._answers = answers

    async def Session(self, request_iterator: object, context: Any) -> None:
        while self._answers and (message := await context.read()) is not grpc.aio.EOF:
            self.asked.append(message)
            if (answer := self._answers.pop(0)) is SILENCE:
                await asyncio.Event().wait()
            await context.write(answer)


def reply(**fields: Any) -> pb.ExecutorMessage:
    return pb.ExecutorMessage(state_reply=pb.StateReply(**fields))


def linked(
    folder: Path, answers: list[pb.ExecutorMessage], use: Callable[[Link], Awaitable[object]]
) -> list[pb.HostMessage]:
    """What the executor was asked while ``use`` used the link to it."""
    executor = Executor(answers)

    async def main() -> None:
        server = grpc.aio.server()
        executor_pb2_grpc.add_ExecutorServicer_to_server(executor, server)
        server.add_insecure_port(f"unix:{folder}/{SOCKET_NAME}")
        await server.start()
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        channel = Channel.connect(directory, Session(1 << 20, Phase.IDLE, execution=50))
        try:
            await use(Link(None, channel, directory, None))  # type: ignore[arg-type]  # neither is asked
        finally:
            await channel.close()
            await server.stop(None)
            os.close(directory)

    in_loop(main())
    return executor.asked


def test_a_request_is_asked_and_its_answer_given(folder: Path) -> None:
    answers = [reply(checkpoints=[pb.CheckpointInfo(number=4)]), reply()]

    async def use(link: Link) -> None:
        assert only(await state.ask(link, "checkpoint()", checkpoint=pb.Checkpoint(name=b"n"))).number == 4
        assert not (await state.ask(link, "list", list_checkpoints=pb.ListCheckpoints())).checkpoints
        assert link.channel.session.phase is Phase.IDLE

    kinds = [message.WhichOneof("kind") for message in linked(folder, answers, use)]
    assert kinds == ["checkpoint", "list_checkpoints"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (reply(error="there is too little memory"), "undo(): there is too little memory"),
        (reply(error="two\nlines \x1b[2J\u202e"), "undo(): two lines \\u202e"),
        (reply(error="x" * 500), "undo(): " + "x" * (MAX_REASON_SHOWN - 1) + "…"),
        (reply(missing=True), "undo(): there is no such checkpoint. Kept are: none"),
        (
            reply(
                missing=True, error="?", checkpoints=[pb.CheckpointInfo(), pb.CheckpointInfo(name=b"a", execution=3)]
            ),
            "undo(): there is no such checkpoint. Kept are: execution 0, 'a' (execution 3)",
        ),
    ],
    ids=["error", "hostile", "long", "missing", "missing, with a list"],
)
def test_what_was_not_done_is_an_error_that_says_what_and_why(
    folder: Path, answer: pb.ExecutorMessage, says: str
) -> None:
    async def use(link: Link) -> None:
        with pytest.raises(CheckpointError) as caught:
            await state.ask(link, "undo()", rollback=pb.Rollback(to=pb.Target(before_last=True)))
        assert str(caught.value) == says
        assert not (await state.ask(link, "again", list_checkpoints=pb.ListCheckpoints())).error  # it can go on

    linked(folder, [answer, reply()], use)


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([pb.ExecutorMessage(file_reply=pb.FileReply())], ProtocolViolation),
        ([pb.ExecutorMessage()], ProtocolViolation),
        ([reply(checkpoints=[pb.CheckpointInfo()] * 257)], ProtocolViolation),
        ([reply(error="x" * (5 << 20))], ProtocolViolation),
        ([], SandboxDied),
    ],
    ids=["another answer", "nothing", "too many", "too large", "the end"],
)
def test_an_executor_that_fails_is_no_checkpoint_error(
    folder: Path, answers: list[pb.ExecutorMessage], error: type[Exception]
) -> None:
    async def use(link: Link) -> None:
        with pytest.raises(error):
            await state.ask(link, "checkpoint()", checkpoint=pb.Checkpoint())

    linked(folder, answers, use)


def test_one_that_does_not_answer_is_a_timeout(folder: Path) -> None:
    async def use(link: Link) -> None:
        with pytest.raises(TimeoutError):
            await link.request_state(0.05, list_checkpoints=pb.ListCheckpoints())

    linked(folder, [SILENCE], use)


@pytest.mark.parametrize("count", [0, 41])
def test_a_branch_is_attached_to_with_its_secret_and_counts_on(folder: Path, count: int) -> None:
    forked = pb.Forked(branch=3, secret=b"s" * 32, execution=count)

    async def use(link: Link) -> None:
        branch = await link.channel.branch(forked)
        assert branch.session.phase is Phase.IDLE
        assert branch.session.begin_execution() == count + 1
        await branch.close()
        assert not (await state.ask(link, "list", list_checkpoints=pb.ListCheckpoints())).error  # the first goes on

    asked = linked(folder, [pb.ExecutorMessage(attached=pb.Attached()), reply()], use)
    assert asked[0].attach == pb.Attach(branch=3, secret=b"s" * 32)


@pytest.mark.parametrize(
    ("answers", "error"), [([reply()], ProtocolViolation), ([], SandboxDied)], ids=["another answer", "the end"]
)
def test_a_branch_that_cannot_be_attached_to_is_an_error(
    folder: Path, answers: list[pb.ExecutorMessage], error: type[Exception]
) -> None:
    async def use(link: Link) -> None:
        with pytest.raises(error):
            await link.channel.branch(pb.Forked(branch=1))

    linked(folder, answers, use)
