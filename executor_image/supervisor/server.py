"""The gRPC server: one session, proven by token, and a stream for each of its branches; then the end of the container.

Closing the first stream ends the container at once (a session is used once); a silent one, or none at all, after the
lease; any one after the lifetime. So nothing outlives a killed orchestrator, whatever happens to the engine's clean-up.
A host that has said so (``Open.outlives_host``) is waited for, or another one that knows the token, for one lease.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import platform
import secrets
import signal
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, NoReturn

import grpc
from executor_api.v1 import executor_pb2 as pb
from executor_api.v1 import executor_pb2_grpc

from executor_image import frames
from executor_image.supervisor.container import MAX_BRANCHES, Container
from executor_image.supervisor.facts import facts
from executor_image.supervisor.orphan import Orphan
from executor_image.supervisor.peer import Peer
from executor_image.supervisor.session import HostViolation, Session
from executor_image.supervisor.setup import setup_body
from executor_image.supervisor.staged import Staged

SOCKET_DIR = Path("/run/s")  # bind-mounted; only this uid may enter
PROTOCOL_VERSION = 1
MAX_MESSAGE = 4 << 20
READY_DEADLINE = 20.0  # seconds for a runner to start
NONCE_BYTES = 32
PARTING = 3.0  # seconds from a refusal to the container's end: why it was refused is to reach the host before
_Session = Session  # the class below has a method of that name


def proof(token: bytes, label: bytes, *nonces: bytes) -> bytes:
    """Knowledge of the token, bound to both nonces and to who says it."""
    return hmac.new(token, label + b"".join(nonces), hashlib.sha256).digest()


class Executor(executor_pb2_grpc.ExecutorServicer):
    """Serves the one session of this container, and its branches."""

    def __init__(self, staged: Staged, token: bytes, lease: float) -> None:
        self._staged = staged
        self._token = token
        self._lease = lease
        self._unopened = asyncio.get_running_loop().call_later(lease, end)
        self._taken = False
        self._container: Container | None = None
        self._orphan: Orphan | None = None

    async def Session(self, request_iterator: object, context: Any) -> None:
        """One stream, to its end."""
        if self._container:
            message = await context.read()
            if self._container.opened.outlives_host and message is not grpc.aio.EOF and message.HasField("hello"):
                await self._serve_resumed(message.hello, context)
            else:
                await self._serve_branch(self._container, message, context)
        elif self._taken:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this executor has had its session")
        else:
            self._taken = True
            await self._serve_container(context)

    async def _serve_container(self, context: Any) -> None:
        try:
            opened = (await self._prove((await self._expect(context, "hello")).hello, context, "open", b"host")).open
            staged = self._staged
            container = Container(staged, opened)
            session = Session(container, 0, Peer(staged.runner, staged.runner_pid), staged.pipes)
            session.tree.head.send(frames.SETUP, setup_body(opened))
            async with asyncio.timeout(READY_DEADLINE):
                await session.ready
            ready = facts(staged, opened, platform.python_version())
            self._unopened.cancel()
            self._container = container
        except HostViolation as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except asyncio.CancelledError:  # the host has gone
            end()
        finally:
            if self._container is None:
                asyncio.get_running_loop().call_later(PARTING, end)
        await self._serve_first(session, context, pb.ExecutorMessage(ready=ready))

    async def _serve_first(self, session: _Session, context: Any, first: pb.ExecutorMessage) -> None:
        """The stream of the container's own branch, with which the container ends, unless that is to wait.

        ``first`` is said at the beginning; the host may have heard it and be lost before that is known here.
        """
        outlives = self._container is not None and self._container.opened.outlives_host
        parting = 0.0
        try:
            await context.write(first)
            await _converse(session, context)
        except HostViolation as error:
            outlives, parting = False, PARTING
            session.kill()  # nothing runs for a host that cannot be understood
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        finally:
            if outlives and not session.spent:
                self._orphan = Orphan(session, self._lease, end)
            else:
                asyncio.get_running_loop().call_later(parting, end)

    async def _serve_resumed(self, hello: pb.Hello, context: Any) -> None:
        """The stream of a host that comes after another one. Until it has proven the token, nothing changes."""
        await self._prove(hello, context, "resume", b"resume")
        orphan, self._orphan = self._orphan, None
        if orphan is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this session has its host")
            return
        try:
            await orphan.resumed()
        except TimeoutError:
            end()
        except asyncio.CancelledError:  # this host has gone, too
            self._orphan = Orphan(orphan.session, self._lease, end)
            raise
        await self._serve_first(orphan.session, context, pb.ExecutorMessage(resumed=orphan.session.as_resumed()))

    async def _serve_branch(self, container: Container, message: Any, context: Any) -> None:
        attach = message.attach if message is not grpc.aio.EOF else pb.Attach()
        session = container.attach(attach.branch, attach.secret)
        if not isinstance(session, Session):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "there is no such branch to attach to")
            return
        try:
            await context.write(pb.ExecutorMessage(attached=pb.Attached()))
            await _converse(session, context)
        except HostViolation as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        finally:
            session.close()

    async def _prove(self, hello: pb.Hello, context: Any, kind: str, label: bytes) -> pb.HostMessage:
        """Each side shows that it knows the token, and only then anything is done."""
        if hello.protocol_version != PROTOCOL_VERSION:
            await context.write(pb.ExecutorMessage(challenge=pb.Challenge(protocol_version=PROTOCOL_VERSION)))
            why = f"this executor speaks version {PROTOCOL_VERSION} of the protocol, not {hello.protocol_version}"
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, why)
        nonce = secrets.token_bytes(NONCE_BYTES)
        bound = (hello.session_id, hello.host_nonce, nonce)
        mine = proof(self._token, b"executor", *bound)
        challenge = pb.Challenge(protocol_version=PROTOCOL_VERSION, executor_nonce=nonce, proof=mine)
        await context.write(pb.ExecutorMessage(challenge=challenge))
        message = await self._expect(context, kind)
        if not hmac.compare_digest(getattr(message, kind).proof, proof(self._token, label, *bound)):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the host does not know the token")
        return message

    async def _expect(self, context: Any, kind: str) -> pb.HostMessage:
        message = await context.read()
        if message is grpc.aio.EOF or message.WhichOneof("kind") != kind:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{kind} was expected")
        return message  # type: ignore[no-any-return]


async def _converse(session: Session, context: Any) -> None:
    writer = asyncio.create_task(_write(session, context))
    try:
        while (message := await context.read()) is not grpc.aio.EOF:
            session.handle(message)
    finally:
        writer.cancel()


async def _write(session: Session, context: Any) -> None:
    while True:
        message = await session.outbox.get()
        await context.write(message)
        if message.HasField("finished"):
            session.settle()


def end() -> NoReturn:
    """Ends this process, PID 1, and with it the container."""
    os._exit(0)


def _take_token() -> bytes:
    """Reads the token and removes its file."""
    path = SOCKET_DIR / "token"
    token = path.read_bytes()
    path.unlink()
    if len(token) != 32:
        raise SystemExit("the token has the wrong length")
    return token


async def _serve(staged: Staged, lease: float, lifetime: float) -> None:
    loop = asyncio.get_running_loop()
    loop.call_later(lifetime, end)
    half = int(lease * 500)  # milliseconds: a ping after half a lease, the other half to answer
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.max_concurrent_streams", 1 + MAX_BRANCHES),
            ("grpc.keepalive_time_ms", half),
            ("grpc.keepalive_timeout_ms", half),
            ("grpc.http2.ping_timeout_ms", half),
            ("grpc.http2.max_pings_without_data", 0),
        ]
    )
    executor = Executor(staged, _take_token(), lease)
    executor_pb2_grpc.add_ExecutorServicer_to_server(executor, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"unix:{SOCKET_DIR}/starting.sock")
    await server.start()
    # The host connects as soon as it sees the name: it must not appear between gRPC's bind and its listen.
    os.rename(SOCKET_DIR / "starting.sock", SOCKET_DIR / "executor.sock")
    await server.wait_for_termination()


def run(staged: Staged, lease: float, lifetime: float) -> NoReturn:
    """Serves until the session, the lease or the lifetime ends; never returns."""
    signal.signal(signal.SIGTERM, lambda *_: end())
    os.umask(0o077)
    served: Awaitable[None] = _serve(staged, lease, lifetime)
    try:
        asyncio.run(served)  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 — said once, on the container's stderr, before the end
        print(f"executor: {type(error).__name__}: {error}", file=sys.stderr)
    os._exit(1)
