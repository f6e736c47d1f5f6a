"""The gRPC server: one session, proven by token, and a stream for each of its branches; then the end of the container.

Closing the first stream ends the container at once (a session is used once); a silent one, or none at all, after the
lease; any one after the lifetime. So nothing outlives a killed orchestrator, whatever happens to the engine's clean-up.
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
from executor_image.supervisor.peer import Peer
from executor_image.supervisor.session import HostViolation, Session
from executor_image.supervisor.setup import setup_body
from executor_image.supervisor.staged import Staged

SOCKET_DIR = Path("/run/s")  # bind-mounted; only this uid may enter
PROTOCOL_VERSION = 1
MAX_MESSAGE = 4 << 20
READY_DEADLINE = 20.0  # seconds for a runner to start
NONCE_BYTES = 32


def proof(token: bytes, label: bytes, *nonces: bytes) -> bytes:
    """Knowledge of the token, bound to both nonces and to who says it."""
    return hmac.new(token, label + b"".join(nonces), hashlib.sha256).digest()


class Executor(executor_pb2_grpc.ExecutorServicer):
    """Serves the one session of this container, and its branches."""

    def __init__(self, staged: Staged, token: bytes, lease: asyncio.TimerHandle) -> None:
        self._staged = staged
        self._token = token
        self._lease = lease
        self._taken = False
        self._container: Container | None = None

    async def Session(self, request_iterator: object, context: Any) -> None:
        """One stream, to its end. The process ends with the first one."""
        if self._container:
            await self._serve_branch(self._container, context)
        elif self._taken:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this executor has had its session")
        else:
            self._taken = True
            await self._serve_container(context)

    async def _serve_container(self, context: Any) -> None:
        opened = await self._prove(context)
        try:
            staged = self._staged
            container = Container(staged, opened)
            session = Session(container, 0, Peer(staged.runner, staged.runner_pid), staged.pipes)
            session.tree.head.send(frames.SETUP, setup_body(opened))
            async with asyncio.timeout(READY_DEADLINE):
                await session.ready
            await context.write(pb.ExecutorMessage(ready=facts(staged, opened, platform.python_version())))
            self._lease.cancel()
            self._container = container
            await _converse(session, context)
        except HostViolation as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        finally:
            end()

    async def _serve_branch(self, container: Container, context: Any) -> None:
        attach = (await context.read()).attach
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

    async def _prove(self, context: Any) -> pb.Open:
        """Each side shows that it knows the token, and only then anything is done."""
        hello = (await self._expect(context, "hello")).hello
        if hello.protocol_version != PROTOCOL_VERSION:
            await context.write(pb.ExecutorMessage(challenge=pb.Challenge(protocol_version=PROTOCOL_VERSION)))
            why = f"this executor speaks version {PROTOCOL_VERSION} of the protocol, not {hello.protocol_version}"
            await self._refuse(context, grpc.StatusCode.UNIMPLEMENTED, why)
        nonce = secrets.token_bytes(NONCE_BYTES)
        bound = (hello.session_id, hello.host_nonce, nonce)
        mine = proof(self._token, b"executor", *bound)
        challenge = pb.Challenge(protocol_version=PROTOCOL_VERSION, executor_nonce=nonce, proof=mine)
        await context.write(pb.ExecutorMessage(challenge=challenge))
        opened = (await self._expect(context, "open")).open
        if not hmac.compare_digest(opened.proof, proof(self._token, b"host", *bound)):
            await self._refuse(context, grpc.StatusCode.UNAUTHENTICATED, "the host does not know the token")
        return opened

    async def _expect(self, context: Any, kind: str) -> pb.HostMessage:
        message = await context.read()
        if message is grpc.aio.EOF or message.WhichOneof("kind") != kind:
            await self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, f"{kind} was expected")
        return message  # type: ignore[no-any-return]

    async def _refuse(self, context: Any, code: grpc.StatusCode, why: str) -> None:
        asyncio.get_running_loop().call_later(1.0, end)  # time for the status to reach the host
        await context.abort(code, why)


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
    executor = Executor(staged, _take_token(), loop.call_later(lease, end))
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
