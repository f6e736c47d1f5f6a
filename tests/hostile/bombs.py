"""What a hostile executor may try to fill its host's memory with. Each is played by a process of its own."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from executor_api.v1 import executor_pb2 as pb

from orchestrator.config import Limits
from orchestrator.sandbox import AsyncSandbox, files, inbox
from tests.hostile.http2 import CONTINUATION, DATA, HEADERS, PING, SETTINGS, WINDOW_UPDATE, Wire, frame, header
from tests.hostile.peer import Peer, called, finished, honest, output, varint
from tests.hostile.stage import AnyScript, Below
from tests.hostile.test_stream import compressed

MB = 1 << 20
LARGEST = 4 * MB - 100  # bytes that fit into one message


@dataclass(frozen=True)
class Bomb:
    """What is played, what the caller does, what it may come to, and what the host may grow by."""

    script: AnyScript
    act: Callable[[AsyncSandbox], Awaitable[object]]
    errors: tuple[str, ...] = ("ProtocolViolation",)
    grows: int = 24 * MB  # the largest message as it came, twice over, and what reading it takes
    timeout: float = 5.0
    tools: tuple[Callable[..., Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


async def run(sandbox: AsyncSandbox) -> object:
    return await sandbox.run_code("1")


def many(field_: int, part: bytes, size: int = LARGEST) -> bytes:
    """One field full of the smallest parts."""
    body = part * (size // len(part))
    return bytes([field_ << 3 | 2]) + varint(len(body)) + body


def long_field(number: int, content: bytes) -> bytes:
    """A field of any number, in front of so much."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def table_of(column: bytes) -> bytes:
    """A table of one column, that value."""
    return long_field(22, long_field(1, long_field(1, b"\x08\x01") + long_field(2, column)))


# --------------------------------------------------------------------------------------------- where a bomb is dropped


def for_code(*messages: Callable[[], pb.ExecutorMessage | bytes]) -> Callable[[Peer], Awaitable[None]]:
    """Answers code with these, again and again, and hears nothing."""

    async def script(peer: Peer) -> None:
        await peer.executing()
        made = [message() for message in messages]
        while True:
            for message in made:
                await peer.say(message)

    return script


def for_a_request(message: Callable[[], bytes]) -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        await peer.open()
        await peer.hear()
        while True:
            await peer.say(message())

    return script


def for_open(message: Callable[[], bytes]) -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        await peer.say(peer.challenge((await peer.hear()).hello))
        while True:
            await peer.say(message())

    return script


def while_idle(message: Callable[[], bytes]) -> Callable[[Peer], Awaitable[None]]:
    async def script(peer: Peer) -> None:
        await peer.open()
        while True:
            await peer.say(message())

    return script


async def when_full(sandbox: AsyncSandbox) -> None:
    """Comes back when as much lies there as may."""
    await sandbox.start()
    link = sandbox._link
    assert link
    while link.channel._inbox._bytes < inbox.MAX_BYTES:  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0.01)
    await sandbox.run_code("1")


async def two_bytes_each(peer: Peer) -> None:
    """As many texts, if each piece were kept as one."""
    await peer.executing()
    while True:
        await peer.say(output(1, "ä".encode()))


async def calls_without_end(peer: Peer) -> None:
    """And takes none of the answers."""
    await peer.executing()
    number = 0
    while True:
        number += 1
        await peer.say(called(1, number, b"x" * 256))


async def calls_and_hears(peer: Peer) -> None:
    await peer.executing()
    for number in range(1, 5_001):
        await peer.say(called(1, number, b"other"))
        await peer.hear()
    await peer.say(finished(1))


async def hangs(*args: Any) -> None:
    """A tool that never ends."""
    await asyncio.Event().wait()


def sets(count: int) -> bytes:
    """So many empty sets, the largest of what takes four bytes on the wire."""
    return many(1, b"\x0a\x02\x52\x00", 4 * count)


async def calls_that_hold_on(peer: Peer) -> None:
    """As many at once as may be, each with as much in it as may be."""
    await peer.executing()
    for number in range(1, 65):
        await peer.say(called(1, number, b"hangs", sets(90_000)))
    while True:
        await peer.hear()


async def endless_file(peer: Peer) -> None:
    await peer.open()
    piece = pb.ExecutorMessage(file_reply=pb.FileReply(data=bytes(files.PIECE)))
    while True:
        await peer.hear()
        await peer.say(piece)


def flood(make: Callable[[int], bytes]) -> Below:
    async def script(wire: Wire) -> None:
        await wire.executing()
        number = 0
        while True:
            await wire.send(*(make(number + each) for each in range(500)))
            number += 500

    return Below(script)


async def messages_of_nothing(wire: Wire) -> None:
    """A million empty messages in a few frames."""
    await wire.executing()
    while True:
        await wire.send(frame(DATA, 0, 1, struct.pack(">BI", 0, 0) * 3000))


async def list_files(sandbox: AsyncSandbox) -> object:
    return await sandbox.files.list()


async def read_file(sandbox: AsyncSandbox) -> object:
    return await sandbox.files.read("endless")


async def list_checkpoints(sandbox: AsyncSandbox) -> object:
    return await sandbox.checkpoints()


EITHER = ("ProtocolViolation", "SandboxDied")
HELD = 192 * MB  # seven calls of 90,000 empty sets; see PARTS_OF_A_CALL
VALUES = 128 * MB  # parsing three megabytes of empty values; see MAX_OUTCOME
BOMBS: dict[str, Bomb] = {
    "PRO-01 a reply of 5 MB": Bomb(for_code(lambda: output(1, bytes(5 * MB))), run),
    "PRO-01 a gzip bomb": Bomb(Below(compressed(b"identity")), run, EITHER),
    "PRO-02 legal pieces without end": Bomb(for_code(lambda: output(1, b"x" * (256 << 10))), run),
    "PRO-02 pieces of one letter": Bomb(two_bytes_each, run, timeout=60, settings={"limits": Limits(output="1k")}),
    "PRO-02 gaps without end": Bomb(
        for_code(lambda: output(1, b"x", dropped=1 << 63)), run, settings={"limits": Limits(output="1k")}
    ),
    "PRO-02 empty messages": Bomb(Below(messages_of_nothing), run),
    "PRO-02 while nothing is asked": Bomb(
        while_idle(lambda: output(1, bytes(256 << 10)).SerializeToString()), when_full
    ),
    "PRO-02 the largest while nothing is asked": Bomb(while_idle(lambda: many(8, b"\x1a\x00")), when_full),
    "PRO-02 PINGs": Bomb(flood(lambda n: frame(PING, 0, 0, struct.pack(">Q", n))), run, EITHER, timeout=2.0),
    "PRO-02 SETTINGS": Bomb(flood(lambda n: frame(SETTINGS, 0, 0)), run, EITHER, timeout=2.0),
    "PRO-02 empty DATA": Bomb(flood(lambda n: frame(DATA, 0, 1)), run, EITHER, timeout=2.0),
    "PRO-02 WINDOW_UPDATEs": Bomb(
        flood(lambda n: frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))), run, EITHER, timeout=2.0
    ),
    "PRO-02 unknown frames": Bomb(flood(lambda n: frame(200, 0, 0, b"x" * 100)), run, EITHER, timeout=2.0),
    "PRO-02 headers": Bomb(
        flood(lambda n: frame(CONTINUATION if n else HEADERS, 0, 1, header(b"a%d" % n, b"b" * 200))), run, EITHER
    ),
    "PRO-04 two million processes": Bomb(for_open(lambda: many(2, b"\x0a\x00")), run),
    "PRO-04 two million network interfaces": Bomb(for_open(lambda: many(2, b"\x12\x00")), run),
    "PRO-04 a message of a million messages": Bomb(for_code(lambda: b"\x1a\x00\x2a\x00" * (LARGEST // 4)), run),
    "PRO-04 unknown fields": Bomb(for_code(lambda: many(3, b"\xf8\x06\x01")), run),
    "SER-07 a million checkpoints": Bomb(for_a_request(lambda: many(8, b"\x1a\x00")), list_checkpoints),
    "ARC-02 two million files": Bomb(for_a_request(lambda: many(6, b"\x12\x00")), list_files),
    "ARC-02 a million files within the bound": Bomb(for_a_request(lambda: many(6, b"\x12\x00", 3 * MB)), list_files),
    "FS-10 a file without end": Bomb(
        endless_file, read_file, ("SandboxFileError",), grows=2 * files.MAX_FILE, timeout=60
    ),
    "TOOL-02 calls without end": Bomb(calls_without_end, run, ("SandboxDied",), timeout=2.0),
    "TOOL-02 5,000 calls": Bomb(calls_and_hears, run, (), timeout=60),
    "TOOL-08 arguments that are held on to": Bomb(
        calls_that_hold_on, run, ("SandboxDied", "OutcomeUnknown"), grows=HELD, timeout=6.0, tools=(hangs,)
    ),
    "nothing at all": Bomb(honest, run, ()),
}


def _values() -> dict[str, Bomb]:
    """Millions of the smallest values, in each place where there may be one."""
    list_of = many(8, b"\x0a\x00", 3 * MB - 1000)
    pairs = many(12, b"\x0a\x00", 3 * MB - 1000)
    return {
        "SER-07 a value of a million": Bomb(
            for_code(lambda: finished(1, outcome=b"\x0a" + varint(len(list_of)) + list_of)), run, grows=VALUES
        ),
        "SER-07 an answer of a million pairs": Bomb(
            for_code(lambda: finished(1, final_answer=pairs)), run, grows=VALUES
        ),
        "SER-07 an answer of a million columns": Bomb(
            for_code(lambda: finished(1, final_answer=long_field(22, b"\x0a\x00" * MB))), run, grows=VALUES
        ),
        "SER-07 an answer of a million cells": Bomb(
            for_code(lambda: finished(1, final_answer=table_of(many(8, b"\x0a\x00", 3 * MB - 1000)))), run, grows=VALUES
        ),
        "SER-07 a million bundles": Bomb(
            for_code(lambda: finished(1, outcome=b"\x1a\x00" * (MB + MB // 3))),
            run,
            (),
            grows=VALUES,
        ),
        "TOOL-08 arguments of a million": Bomb(
            for_code(lambda: called(1, 1, b"hangs", many(1, b"\x0a\x00", 2 * MB - 1000))),
            run,
            grows=VALUES,
            tools=(hangs,),
        ),
    }


BOMBS |= _values()
