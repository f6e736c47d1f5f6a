"""A real server of the service's API, over a unix socket and over TLS, and what a test puts behind it."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator.errors import NotFound, StoreError
from orchestrator.service import tls
from orchestrator.service.access import caller, hash_of
from orchestrator.service.quotas import DAY
from orchestrator.stack import places
from orchestrator.store import StoredToken

DEADLINE = 20.0  # seconds for one test


def run(test: Coroutine[Any, Any, Any], seconds: float = DEADLINE) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(seconds):
            return await test

    return asyncio.run(bounded())


@dataclass(frozen=True)
class Certificate:
    chain: Path
    key: Path


def certificate(folder: Path, name: str = "server", mode: int = 0o600) -> Certificate:
    """A certificate for 127.0.0.1 that is its own root."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    made = made.not_valid_after(now + datetime.timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = made.add_extension(names, critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = serialization.Encoding.PEM
    files = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    files.chain.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    files.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    files.key.chmod(mode)
    return files


@dataclass
class MemoryTokens:
    """Tokens in memory."""

    kept: dict[str, StoredToken] = field(default_factory=dict)

    def put(self, token: str, name: str, *scopes: str, **fields: Any) -> None:
        self.kept[name] = StoredToken(name, hash_of(token), frozenset(scopes), **fields)

    async def token_of(self, hash: str) -> StoredToken | None:
        found = (token for token in self.kept.values() if token.hash == hash and not token.revoked)
        return next(found, None)

    async def tokens(self) -> list[StoredToken]:
        return list(self.kept.values())

    async def add_token(self, token: StoredToken) -> None:
        if token.name in self.kept:
            raise StoreError(f"there is or was a token named {token.name!r}")
        self.kept[token.name] = token

    async def revoke(self, name: str) -> None:
        if name not in self.kept:
            raise NotFound(f"there is no token {name!r}")
        self.kept[name] = replace(self.kept[name], revoked=self.kept[name].revoked or time.time())


@dataclass(frozen=True)
class Noted:
    cpu_seconds: float = 0.0
    run_seconds: float = 0.0


@dataclass
class MemoryUsages:
    """What was used, in memory, by day."""

    clock: list[float]
    days: dict[tuple[str, int], Noted] = field(default_factory=dict)
    read: int = 0
    is_broken: bool = False
    refused_seconds: float = 0.0
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    noted: asyncio.Event = field(default_factory=asyncio.Event)

    async def add_usage(self, token: str, *, cpu_seconds: float = 0.0, run_seconds: float = 0.0) -> None:
        if self.is_broken:
            self.refused_seconds = run_seconds
            self.refused.set()
            raise StoreError("the disk is full")
        place = (token, int(self.clock[0] // DAY))
        before = self.days.get(place, Noted())
        self.days[place] = Noted(before.cpu_seconds + cpu_seconds, before.run_seconds + run_seconds)
        self.noted.set()

    async def usage(self, token: str, since: float) -> Noted:
        self.read += 1
        await asyncio.sleep(0)
        found = [used for (name, day), used in self.days.items() if name == token and day * DAY >= since]
        return Noted(sum(used.cpu_seconds for used in found), sum(used.run_seconds for used in found))


class Sandboxes(rpc.SandboxesServicer):
    """Says who calls."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()  # a stream was

    async def Get(self, request: pb.SandboxId, context: Any) -> pb.Sandbox:
        return pb.Sandbox(id=request.id, owner=caller().name)

    async def Execute(self, request: pb.Execution, context: Any) -> AsyncIterator[pb.Event]:
        try:
            for number in range(3):
                yield pb.Event(number=number + 1, json=caller().name.encode())
            if request.key == "endless":
                await asyncio.Event().wait()
        finally:
            self.closed.set()

    async def WriteFile(self, request: AsyncIterator[pb.FilePiece], context: Any) -> pb.Done:
        async for piece in request:
            assert piece.data == caller().name.encode()
        return pb.Done()


class Tools(rpc.ToolsServicer):
    async def Serve(self, request: AsyncIterator[pb.FromApp], context: Any) -> None:
        async for _ in request:  # by gRPC's other interface: the method writes
            await context.write(pb.ToApp(opened=pb.Opened()))


@dataclass
class Served:
    """Addresses of a server, and what is behind it."""

    socket: str
    port: int
    root: Path
    sandboxes: Sandboxes

    def local(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.socket)

    def remote(self) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", trusting(self.root))


def trusting(root: Path) -> grpc.ChannelCredentials:
    """Those of a client."""
    return grpc.ssl_channel_credentials(root.read_bytes())


@asynccontextmanager
async def serving(folder: Path, *interceptors: grpc.aio.ServerInterceptor, **servicers: Any) -> AsyncIterator[Served]:
    """A server with these interceptors; ``Service=...`` gives one of its servicers."""
    server = grpc.aio.server(interceptors=interceptors)
    sandboxes = Sandboxes()
    rpc.add_SandboxesServicer_to_server(sandboxes, server)
    rpc.add_ToolsServicer_to_server(Tools(), server)
    rpc.add_RunsServicer_to_server(rpc.RunsServicer(), server)
    rpc.add_ServiceServicer_to_server(servicers.get("Service") or rpc.ServiceServicer(), server)
    for add in servicers.get("more", ()):
        add(server)
    files = certificate(folder)
    socket = f"unix:{folder}/{places.SERVICE_SOCKET}"
    server.add_insecure_port(socket)
    port = tls.listen(server, "127.0.0.1:0", files.chain, files.key)
    await server.start()
    try:
        yield Served(socket, port, files.chain, sandboxes)
    finally:
        await server.stop(0)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with that token."""
    return (("authorization", f"Bearer {token}"),)
