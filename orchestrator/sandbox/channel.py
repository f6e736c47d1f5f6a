"""The gRPC stream to one executor: connecting safely, proving the token, reading and writing. The seam to grpc.

The peer is hostile as soon as user code has run. gRPC bounds the size of a message and hands it over as bytes; what
they mean is ``session.Session``'s matter, which looks before it parses. What waits here, on the way in and on the way
out, is bounded too. Every failure of gRPC becomes ``SandboxDied`` or ``ProtocolViolation`` here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from executor_api.v1 import executor_pb2 as pb

from orchestrator.errors import ProtocolViolation, SandboxDied, SandboxStartError
from orchestrator.sandbox.folders import SOCKET_NAME
from orchestrator.sandbox.grpc_quiet import grpc
from orchestrator.sandbox.inbox import Inbox
from orchestrator.sandbox.session import Phase, Session
from orchestrator.sanitise import one_line

PROTOCOL_VERSION = 1
MAX_DETAILS = 300  # characters of a status
MAX_MESSAGE = 4 << 20
MAX_UNSENT = 4 << 20  # bytes of answers that an executor may leave untaken; until it takes some it is not listened to
END_SECONDS = 2.0  # for an executor to end when it is told to; the engine ends it as well
_NONCE_BYTES = 32
_SESSION = f"/{pb.DESCRIPTOR.services_by_name['Executor'].full_name}/Session"
_NEVER = 24 * 3600 * 1000  # milliseconds
_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # identity only: no decompression bombs
    ("grpc.enable_retries", 0),  # code is never sent twice
    # Nor is anything connected twice: the path goes by a descriptor, whose number may be another sandbox's by then.
    ("grpc.initial_reconnect_backoff_ms", _NEVER),
    ("grpc.max_reconnect_backoff_ms", _NEVER),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 30_000),
    ("grpc.http2.ping_timeout_ms", 30_000),
)
# What a peer provokes by sending what it must not, as opposed to going away.
_VIOLATIONS = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED})
# What grpc.aio says, as INTERNAL, where a write of its own met a stream that was over (``set_internal_error``).
_WRITE_FAILED = "Internal error from Core"


def check_socket(directory: int, uid: int) -> None:
    """The path in ``directory`` (an open descriptor) is a socket, made by the supervisor, and no link.

    ``connect`` follows links: a compromised executor could point it at another session's socket, or the engine's.

    Raises:
        FileNotFoundError: it is not there, or not yet.
        ProtocolViolation: it is something else.
    """
    found = os.stat(SOCKET_NAME, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != uid:
        raise ProtocolViolation("the executor's socket is not a socket of the supervisor's")


def proof(token: bytes, label: bytes, *nonces: bytes) -> bytes:
    """Knowledge of the token, bound to both nonces and to who says it."""
    return hmac.new(token, label + b"".join(nonces), hashlib.sha256).digest()


def _failure(error: grpc.aio.AioRpcError) -> SandboxDied | ProtocolViolation:
    details = one_line(error.details() or "", MAX_DETAILS)  # the peer's words
    if error.code() in _VIOLATIONS and error.details() != _WRITE_FAILED:
        return ProtocolViolation(f"the executor broke the protocol: {error.code().name} {details}")
    return SandboxDied(f"the sandbox's container ended or stopped answering ({error.code().name} {details})")


class Channel:
    """One session's stream, or that of a branch. Made by ``connect`` or ``branch``; whoever made it closes it."""

    def __init__(self, channel: grpc.aio.Channel, session: Session, owner: Channel | None = None) -> None:
        self._channel = channel
        self._call: Any = channel.stream_stream(_SESSION)()  # of bytes, both ways
        self._owner = owner  # whose connection it is, if it is not its own
        self._inbox = Inbox()
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()
        self._unsent = 0  # bytes in it
        self._taken = asyncio.Event()  # the peer has taken some
        # Tasks of their own, because cancelling a read or a write of gRPC's cancels the whole stream.
        self._reading = asyncio.create_task(self._read_all())
        self._writing = asyncio.create_task(self._write_all())
        self._ended: SandboxDied | ProtocolViolation | None = None
        self.session = session

    @classmethod
    def connect(cls, directory: int, session: Session) -> Channel:
        """Opens the stream to the socket in ``directory``, an open descriptor that was passed by ``check_socket``.

        The path goes through the descriptor, so no folder on it can be replaced meanwhile. The name in it can, by the
        executor alone: it would be a fault of the executor's, and what is sent first tells nobody anything.
        """
        return cls(
            grpc.aio.insecure_channel(f"unix:/proc/self/fd/{directory}/{SOCKET_NAME}", options=_OPTIONS), session
        )

    async def branch(self, forked: pb.Forked) -> Channel:
        """The stream of a branch, on this one's connection, attached and ready for requests.

        Raises:
            SandboxDied, ProtocolViolation: the executor failed.
        """
        session = Session(self.session.output_cap, Phase.ATTACHING, execution=forked.execution)
        channel = Channel(self._channel, session, owner=self)
        try:
            channel.write(pb.HostMessage(attach=pb.Attach(branch=forked.branch, secret=forked.secret)))
            await channel.read()
        except BaseException:
            await channel.close()
            raise
        return channel

    async def open(self, token: bytes, settings: Mapping[str, Any]) -> pb.Ready:
        """Proves the token both ways and opens the session; ``settings`` are Open's other fields.

        Raises:
            SandboxStartError: the peer does not know the token, or speaks another version.
        """
        bound = await self._challenge(token)
        self.write(pb.HostMessage(open=pb.Open(proof=proof(token, b"host", *bound), **settings)))
        return (await self.read()).ready

    async def resume(self, token: bytes) -> pb.Resumed:
        """The same for a session that another process has opened, and that it has left; what ran has ended then.

        Raises:
            SandboxStartError: as of ``open``.
        """
        bound = await self._challenge(token)
        self.session.resume()
        self.write(pb.HostMessage(resume=pb.Resume(proof=proof(token, b"resume", *bound))))
        return (await self.read()).resumed

    async def _challenge(self, token: bytes) -> tuple[bytes, ...]:
        """The executor has proven that it knows the token; gives what the host's proof is to be bound to."""
        session_id, nonce = secrets.token_bytes(16), secrets.token_bytes(_NONCE_BYTES)
        hello = pb.Hello(protocol_version=PROTOCOL_VERSION, session_id=session_id, host_nonce=nonce)
        self.write(pb.HostMessage(hello=hello))
        challenge = (await self.read()).challenge
        if challenge.protocol_version != PROTOCOL_VERSION:
            raise SandboxStartError(
                f"the image speaks version {challenge.protocol_version} of the protocol, not {PROTOCOL_VERSION}: "
                "build it again with 'make image'"
            )
        bound = (session_id, nonce, challenge.executor_nonce)
        if not hmac.compare_digest(challenge.proof, proof(token, b"executor", *bound)):
            raise SandboxStartError("the executor does not know this session's token")
        return bound

    @property
    def is_open(self) -> bool:
        """Its end has not come, as far as is known without asking."""
        return self._ended is None and self._inbox.failure is None

    def write(self, message: pb.HostMessage) -> None:
        """Sends one message, after those before it. If the stream is closed, the next ``read`` says so."""
        data = message.SerializeToString()
        self._unsent += len(data)
        self._outgoing.put_nowait(data)

    async def _write_all(self) -> None:
        # A write that fails is not the peer's doing as such: why the stream ended is what reading says.
        try:
            while True:
                data = await self._outgoing.get()
                await self._call.write(data)
                self._unsent -= len(data)
                self._taken.set()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return
        finally:
            self._taken.set()

    def require_silence(self) -> None:
        """Nothing has come that was not asked for; to be called before anything is.

        Raises:
            SandboxDied: the executor is gone.
            ProtocolViolation: something has come.
        """
        if self._ended:
            raise self._ended
        if self._inbox.failure:
            raise self._inbox.failure
        if not self._inbox.is_empty:
            self._ended = ProtocolViolation("the executor sent something while nothing was asked of it")
            raise self._ended

    async def read(self) -> pb.ExecutorMessage:
        """The next message, checked against the session's state. A read that is cancelled while it waits loses nothing.

        Raises:
            SandboxDied: the executor is gone.
            ProtocolViolation: it sent what it must not.
        """
        if self._ended:
            raise self._ended
        await self._until_answers_are_taken()
        try:
            return self.session.read(await self._inbox.get())
        except (SandboxDied, ProtocolViolation) as error:
            self._ended = error
            raise

    async def _until_answers_are_taken(self) -> None:
        while self._unsent > MAX_UNSENT and not (self._writing.done() or self._inbox.failure):
            self._taken.clear()
            await self._taken.wait()

    async def _read_all(self) -> None:
        reason: SandboxDied | ProtocolViolation = SandboxDied("the sandbox's container has ended")
        try:
            while (data := await self._call.read()) is not grpc.aio.EOF:
                await self._inbox.put(data)
        except grpc.aio.AioRpcError as error:
            reason = _failure(error)
        finally:
            self._end(reason)

    def _end(self, reason: SandboxDied | ProtocolViolation) -> None:
        self._inbox.end(reason)
        self._taken.set()

    async def end(self) -> None:
        """Tells the executor to end, which one that outlives its host would not do with the stream; then closes.

        That it has heard so is known when the stream ends: what gRPC has taken may still go with a stream that is
        given up.
        """
        self.write(pb.HostMessage(end=pb.End()))
        await asyncio.wait({self._reading}, timeout=END_SECONDS)
        await self.close()

    async def close(self) -> None:
        """Ends the stream, and with it the container; whoever waits in ``read`` is told."""
        closed = SandboxDied("the sandbox has been closed")
        self._ended = self._ended or closed
        self._end(self._ended)
        self._reading.cancel()
        self._writing.cancel()
        self._call.cancel()
        if self._owner is None:
            await self._channel.close()
