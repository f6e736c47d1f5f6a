"""A hostile executor: a real gRPC server on a real unix socket, which can prove the token and then does as it likes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from executor_api.v1 import executor_pb2 as pb

from tests.unit.ready import good

SERVICE = pb.DESCRIPTOR.services_by_name["Executor"].full_name
OUT, ERR = pb.Output.STREAM_STDOUT, pb.Output.STREAM_STDERR
OK, KEPT = pb.Finished.STATUS_OK, pb.Finished.STATE_KEPT
# The server's own options: nothing stops it from sending too much.
_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


@dataclass(frozen=True)
class Place:
    """Where an executor sits, and what a real one is told by its launcher and reads from the token's file."""

    folder: Path
    token: bytes
    supervisor_uid: int
    runner_uid: int

    @property
    def starting(self) -> Path:
        """Where to listen first."""
        return self.folder / "starting.sock"

    def show(self) -> None:
        """The socket is the supervisor's, and appears under its name."""
        os.chown(self.starting, self.supervisor_uid, -1)
        self.starting.rename(self.folder / "executor.sock")


@dataclass
class Heard:
    """What the host said to it, and how often it came back."""

    kinds: list[str] = field(default_factory=list)
    streams: int = 0

    @property
    def executions(self) -> int:
        """How often code was sent."""
        return self.kinds.count("execute")


class Speaker(ABC):
    """One end of a session: how to speak and hear is the subclass's part, what an honest one would say is here."""

    place: Place

    @abstractmethod
    async def hear(self) -> pb.HostMessage:
        """The host's next message."""

    @abstractmethod
    async def say(self, message: pb.ExecutorMessage | bytes) -> None:
        """A message, or any bytes as one."""

    def challenge(self, hello: pb.Hello, **other: Any) -> pb.ExecutorMessage:
        """The answer to Hello, with the fields in ``other`` changed."""
        nonce = bytes(range(32))
        bound = hello.session_id + hello.host_nonce + nonce
        proof = hmac.new(self.place.token, b"executor" + bound, hashlib.sha256).digest()
        return pb.ExecutorMessage(
            challenge=pb.Challenge(**({"protocol_version": 1, "executor_nonce": nonce, "proof": proof} | other))
        )

    def ready(self) -> pb.ExecutorMessage:
        """Says that everything is in force."""
        found = good()
        uids = {found.supervisor_uid: self.place.supervisor_uid, found.runner_uid: self.place.runner_uid}
        for owned in (*found.processes, *found.writable_mounts):
            owned.uid = uids.get(owned.uid, owned.uid)
        found.supervisor_uid, found.runner_uid = self.place.supervisor_uid, self.place.runner_uid
        return pb.ExecutorMessage(ready=found)

    async def open(self) -> None:
        """Proves the token, and is taken for a sandbox."""
        await self.say(self.challenge((await self.hear()).hello))
        await self.hear()
        await self.say(self.ready())

    async def executing(self) -> int:
        """Opens, and waits for code; gives the execution's id."""
        await self.open()
        return (await self.hear()).execute.id


class Peer(Speaker):
    """One stream over gRPC, as the script of an attack has it."""

    def __init__(self, place: Place, context: Any, heard: Heard) -> None:
        self.place = place
        self.context = context
        self.streams = heard.streams  # the number of this one
        self._heard = heard

    async def hear(self) -> pb.HostMessage:
        """The host's next message. Waits for ever when it has ended its side, as a hostile one would."""
        message = await self.context.read()
        if message is grpc.aio.EOF:
            await self.stall()
        data: pb.HostMessage = message
        self._heard.kinds.append(data.WhichOneof("kind") or "nothing")
        return data

    async def say(self, message: pb.ExecutorMessage | bytes) -> None:
        """A message, or any bytes as one."""
        await self.context.write(message)

    async def stall(self) -> None:
        """Keeps the stream open and says nothing."""
        await asyncio.Event().wait()


Script = Callable[[Peer], Awaitable[None]]


async def honest(peer: Peer) -> None:
    """Behaves: echoes the code of each execution as its value."""
    await peer.open()
    while True:
        message = await peer.hear()
        match message.WhichOneof("kind"):
            case "execute":
                value = pb.Value(text=message.execute.code)
                await peer.say(finished(message.execute.id, outcome=pb.Outcome(value=value).SerializeToString()))
            case "file_read" | "file_write" | "file_list":
                await peer.say(pb.ExecutorMessage(file_reply=pb.FileReply()))
            case "interrupt" | "tool_result":
                continue
            case _:
                await peer.say(pb.ExecutorMessage(state_reply=pb.StateReply(checkpoints=[pb.CheckpointInfo()])))


async def in_hello(peer: Peer) -> None:
    """Has heard the first word."""
    await peer.hear()


async def in_opening(peer: Peer) -> None:
    """Has proved that it knows the token."""
    await peer.say(peer.challenge((await peer.hear()).hello))
    await peer.hear()


async def in_executing(peer: Peer) -> None:
    """Has been given code."""
    await peer.executing()


async def asked(peer: Peer) -> None:
    """Has opened, and been asked for something."""
    await peer.open()
    await peer.hear()


def finished(execution: int, status: int = OK, state: int = KEPT, **fields: Any) -> pb.ExecutorMessage:
    """The end of an execution."""
    end = pb.Finished(id=execution, status=status, state=state, forkable=True, **fields)  # type: ignore[arg-type]
    return pb.ExecutorMessage(finished=end)


def output(execution: int, text: bytes = b"x", stream: int = OUT, dropped: int = 0) -> pb.ExecutorMessage:
    """A piece of output."""
    piece = pb.Output(id=execution, stream=stream, text=text, dropped_before=dropped)  # type: ignore[arg-type]
    return pb.ExecutorMessage(output=piece)


def called(execution: int, call: int = 1, name: bytes = b"add", arguments: bytes = b"") -> pb.ExecutorMessage:
    """A tool call."""
    return pb.ExecutorMessage(tool_call=pb.ToolCall(id=execution, call=call, name=name, arguments=arguments))


def varint(number: int) -> bytes:
    """A number as it stands before the content of a field that was put together by hand."""
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def _bytes_of(message: pb.ExecutorMessage | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


class Server:
    """Serves one script on the socket of one place. ``stop`` is its owner's duty."""

    def __init__(self, place: Place, script: Script, heard: Heard) -> None:
        self._place = place
        self._script = script
        self._heard = heard
        self._server = grpc.aio.server(options=_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(
            self._session, request_deserializer=pb.HostMessage.FromString, response_serializer=_bytes_of
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Session": handler}),))

    async def _session(self, _: object, context: Any) -> None:
        self._heard.streams += 1
        await self._script(Peer(self._place, context, self._heard))

    async def start(self) -> None:
        """Listens, and then shows its socket."""
        self._server.add_insecure_port(f"unix:{self._place.starting}")
        await self._server.start()
        self._place.show()

    async def stop(self) -> None:
        """Ends every stream at once."""
        await self._server.stop(None)
