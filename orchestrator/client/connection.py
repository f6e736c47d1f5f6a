"""The connection to an orchestrator service: where it is, who calls, how long is waited, what is asked again.

A request whose answer was lost is sent again as it is: it carries a key, or says the same once more, so nothing is done
twice. A stream that broke is gone on with after the last event that was seen. Everything else that fails is an error at
once.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message
from orchestrator_api.v1 import orchestrator_pb2_grpc as stubs

from orchestrator.client.events import event_of
from orchestrator.client.failures import error_of, is_loss, was_never_sent
from orchestrator.client.tools import AppTools
from orchestrator.client.transport import CLIENT_OPTIONS
from orchestrator.errors import ConfigError, ServiceError, ServiceUnavailable
from orchestrator.sandbox.grpc_quiet import grpc
from orchestrator.stack.places import SERVICE_SOCKET, runtime_dir

if TYPE_CHECKING:
    from orchestrator.client.sandbox import RemoteSandbox

MAX_EVENT = 512 << 20  # bytes of one event: the last one has all the output in it, of which there can be 64 MiB twice
MAX_PATH = 107  # bytes of a socket's path, as the kernel has it
PATIENCE = 30.0  # seconds that a service may be gone
CALL_SECONDS = 60.0  # for one call that waits for nobody
# For one that waits until an execution has ended, which may run for a day: a connection that fails is noticed before.
TURN_SECONDS = 90_000.0
START_SECONDS = 660.0  # for a sandbox to come up: as long as the settings may let it take, and a little
STREAM_SECONDS = 6 * 3600.0  # after which a stream is opened again
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds until it is tried again, doubled each time
LONG = 1 << 16  # bytes of an event that is read in a thread, so that the loop stays free
AGAIN_METADATA = "cellblock-again"  # of a request that may have arrived before
ONCE = frozenset({"CreateToken"})  # are not sent again: the answer to the first one is nowhere else
_STUBS: Mapping[str, Callable[[grpc.aio.Channel], Any]] = {
    "Sandboxes": stubs.SandboxesStub,
    "Runs": stubs.RunsStub,
    "Tools": stubs.ToolsStub,
    "Service": stubs.ServiceStub,
}


def new_key() -> str:
    """A key of one request."""
    return secrets.token_hex(16)


class AsyncConnection:
    """One channel, opened at the first use on the event loop that uses it, and kept to that loop.

    Args:
        address: ``unix:/path`` or ``host:port``; empty: the socket of this user's own service.
        token: sent with each call. Over TCP there must be one, and TLS is used always.
        tls: root certificates in PEM, or the path of their file; without, those that gRPC brings. Only for TCP.
        patience: seconds that the service may be gone before ServiceUnavailable is raised.

    Raises:
        ConfigError: the address is none, or does not go with the other arguments.
    """

    def __init__(
        self, address: str = "", *, token: str = "", tls: bytes | str | Path | None = None, patience: float = PATIENCE
    ) -> None:
        self._address = address or default_address()
        _check(self._address, token, tls, patience)
        self._token = token
        self._roots = _roots(tls)
        self.patience = patience
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self.tools = AppTools(self)
        self.open_sandboxes: set[RemoteSandbox] = set()

    # ---------------------------------------------------------------------------------------------------- the calls

    async def sandboxes(self, method: str, request: Message, **how: Any) -> Any:
        """The answer to one request to ``Sandboxes``; see ``ask``."""
        return await self.ask("Sandboxes", method, request, **how)

    async def runs(self, method: str, request: Message, **how: Any) -> Any:
        """The answer to one request to ``Runs``; see ``ask``."""
        return await self.ask("Runs", method, request, **how)

    async def ask(
        self,
        service: str,
        method: str,
        request: Message,
        *,
        seconds: float = CALL_SECONDS,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Any:
        """The answer to one request, which is sent again if the connection was lost, but for those of ``ONCE``.

        Raises:
            ServiceUnavailable: it was lost for longer than the client is patient, or there was no answer in time.
            CellblockError: what the service says.
        """
        patience = 0.0 if method in ONCE else self.patience
        return await self.again(
            lambda again: self.stub(service, method)(request, **self.how(seconds, metadata, again)), patience
        )

    async def again(self, call: Callable[[bool], Any], seconds: float | None = None) -> Any:
        """What ``call`` gives when it is awaited; made again if the connection was lost. Raises as ``ask``.

        Args:
            call: one call; it is told whether it may have arrived before.
            seconds: that it is made again; by default as long as the client is patient.
        """
        patience, again = Patience(self.patience if seconds is None else seconds), False
        while True:
            try:
                return await call(again)
            except grpc.aio.AioRpcError as error:
                await patience.lost(error)
                again = again or not was_never_sent(error)

    async def follow(
        self,
        service: str,
        method: str,
        request: Callable[[int], Message],
        after: int = 0,
        on_end: Callable[[Mapping[str, Any]], None] = lambda metadata: None,
    ) -> AsyncGenerator[Any, None]:
        """The events of a stream, from any of them on, none lost and none twice, however often the connection is.

        Args:
            request: that for the events after a number.
            after: the first number.
            on_end: is given the metadata that came with the end.

        Raises:
            as ``ask``.
        """
        patience, again = Patience(self.patience), False
        while True:
            try:
                call = self.stub(service, method)(request(after), **self.how(STREAM_SECONDS, again=again))
                try:
                    async for number, data in _whole(call):
                        patience.renew()
                        event = await (asyncio.to_thread(event_of, data) if len(data) > LONG else _at_once(data))
                        after = number
                        yield event
                    on_end(dict(await call.trailing_metadata() or ()))
                    return
                finally:
                    call.cancel()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    on_end(dict(error.trailing_metadata() or ()))
                    await patience.lost(error)
                again = again or not was_never_sent(error)

    def how(self, seconds: float, metadata: Sequence[tuple[str, str]] = (), again: bool = False) -> dict[str, Any]:
        """The deadline and the metadata of a call; ``again``: it may have arrived before."""
        token = (("authorization", f"Bearer {self._token}"),) if self._token else ()
        told = ((AGAIN_METADATA, "1"),) if again else ()
        return {"timeout": seconds, "metadata": (*token, *metadata, *told)}

    def stub(self, service: str, method: str) -> Any:
        """A method to be called.

        Raises:
            ServiceUnavailable: the client has been closed.
            RuntimeError: it is used on another event loop than before.
        """
        if self._is_closed:
            raise ServiceUnavailable("this client has been closed")
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._channel, self._loop = self._opened(), loop
            self._stubs = {name: stub(self._channel) for name, stub in _STUBS.items()}
        if loop is not self._loop:
            raise RuntimeError("a client belongs to the event loop that used it first; make another one for this loop")
        return getattr(self._stubs[service], method)

    def _opened(self) -> grpc.aio.Channel:
        if self._address.startswith("unix:"):
            return grpc.aio.insecure_channel(self._address, options=CLIENT_OPTIONS)
        return grpc.aio.secure_channel(self._address, grpc.ssl_channel_credentials(self._roots), options=CLIENT_OPTIONS)

    async def close(self) -> None:
        """Ends the app's streams and the connection. What is under way fails."""
        self._is_closed = True
        await self.tools.close()
        if self._channel:
            await self._channel.close()


class Patience:
    """How long a connection has been lost, and when it is tried again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """There is one."""
        self._until: float | None = None
        self._pause = FIRST_PAUSE

    async def lost(self, error: grpc.aio.AioRpcError) -> None:
        """Waits until it may be tried again.

        Raises:
            CellblockError: what the call failed with, if that was no loss, or there is no patience left.
        """
        if not is_loss(error):
            told = error_of(error)
            raise told from told.__cause__
        now = asyncio.get_running_loop().time()
        self._until = self._until or now + self._seconds
        if now >= self._until:
            text = f"no orchestrator service has answered for {self._seconds:g} s ({error.details() or 'no reason'})"
            raise ServiceUnavailable(text) from None
        await asyncio.sleep(min(self._pause, self._until - now))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def default_address() -> str:
    """The socket of this user's service: where it is when nothing else is set."""
    return f"unix:{runtime_dir(os.environ.get('CELLBLOCK_RUNTIME_DIR', '')) / SERVICE_SOCKET}"


def _check(address: str, token: str, tls: object, patience: float) -> None:
    if not 0 <= patience <= 86400:
        raise ConfigError(f"patience is {patience:g}; it must be between 0 and 86,400 seconds")
    if not token.isascii() or not token.isprintable():
        raise ConfigError("a token is ASCII without control characters")
    if address.startswith("unix:"):
        if len(os.fsencode(address.removeprefix("unix:"))) > MAX_PATH:
            raise ConfigError(f"the path of the service's socket has more than {MAX_PATH} bytes: {address[:200]!r}")
        if tls is not None:
            raise ConfigError("tls is for an address with a port: a socket needs none")
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{address[:200]!r} is no address of a service: write unix:/path or host:port")
    if not token:
        raise ConfigError(f"a service at {address[:200]!r} needs a token; make one with `cellblock token create`")


def _roots(tls: bytes | str | Path | None) -> bytes | None:
    """Root certificates, checked: gRPC would find nothing wrong, and trust nobody."""
    if tls is None:
        return None
    try:
        roots = tls if isinstance(tls, bytes) else Path(tls).read_bytes()
        ssl.create_default_context(cadata=roots.decode("ascii") or "nothing")
    except (OSError, UnicodeDecodeError) as error:  # ssl's own is an OSError
        raise ConfigError(f"tls: these are no root certificates in PEM: {error}") from None
    return roots


async def _whole(call: Any) -> AsyncGenerator[tuple[int, bytes], None]:
    """Number and content of each event, put together of its pieces."""
    data = bytearray()
    async for piece in call:
        data += piece.json
        if len(data) > MAX_EVENT:
            raise ServiceError(f"the service sent an event of more than {MAX_EVENT:,} bytes")
        if not piece.more:
            yield piece.number, bytes(data)
            data.clear()


async def _at_once(data: bytes) -> Any:
    return event_of(data)
