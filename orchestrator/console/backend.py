"""The service's API as the console calls it: over the socket, with the token of whoever is logged in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from orchestrator_api.v1 import orchestrator_pb2_grpc as stubs

from orchestrator.console.sessions import Session
from orchestrator.sandbox.grpc_quiet import grpc

MAX_MESSAGE = 4 << 20  # bytes, as the .proto says
CALL_SECONDS = 60.0  # for one call; somebody is looking at the page meanwhile
MAX_EVENT = 64 << 20  # bytes of one event that is put together: more is told, and not shown
MAX_TOLD = 2000  # characters of the service's words about a failure
Found = tuple[int, float, bytes | None]  # an event's number, time and JSON; None instead of what is too large
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE + (64 << 10)),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # identity only: no decompression bombs
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_STUBS: Mapping[str, Callable[[grpc.aio.Channel], Any]] = {
    "Sandboxes": stubs.SandboxesStub,
    "Runs": stubs.RunsStub,
    "Service": stubs.ServiceStub,
}
_STATUSES: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNIMPLEMENTED: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class Failed(Exception):
    """What is told instead of an answer.

    Attributes:
        status: of HTTP.
        kind: the name of the service's error, or of the console's own.
        message: in words.
        retry_after: seconds; 0: nothing is said about it.
    """

    def __init__(self, status: int, kind: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.retry_after = status, kind, message, retry_after

    def told(self) -> dict[str, Any]:
        """For the page."""
        return {"error": self.kind, "message": self.message, "retry_after": self.retry_after}


class Backend:
    """One channel to the service, for everybody who is logged in.

    Args:
        address: of gRPC's: ``unix:/path``.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._stubs = {name: stub(self._channel) for name, stub in _STUBS.items()}

    async def close(self) -> None:
        """Ends the connection. What is under way fails."""
        await self._channel.close()

    async def ask(self, session: Session, service: str, method: str, request: Message) -> Any:
        """The answer to one request.

        Raises:
            Failed: there is none.
        """
        return await self.ask_as(session.token, service, method, request)

    async def ask_as(self, token: str, service: str, method: str, request: Message) -> Any:
        """The same, of whoever holds that token; without one, of the socket's user."""
        try:
            call = getattr(self._stubs[service], method)
            return await call(request, timeout=CALL_SECONDS, metadata=_metadata(token))
        except grpc.aio.AioRpcError as error:
            raise failed(error) from None

    async def stream(
        self, session: Session, service: str, method: str, request: Message
    ) -> AsyncGenerator[Found, None]:
        """The events of one request, each put together of its pieces.

        Raises:
            Failed: it ended in another way than it should.
        """
        call = getattr(self._stubs[service], method)(request, metadata=_metadata(session.token))
        try:
            data, is_too_long = bytearray(), False
            async for piece in call:
                is_too_long = is_too_long or len(data) + len(piece.json) > MAX_EVENT
                data += b"" if is_too_long else piece.json
                if not piece.more:
                    yield piece.number, piece.time, None if is_too_long else bytes(data)
                    data, is_too_long = bytearray(), False
        except grpc.aio.AioRpcError as error:
            raise failed(error) from None
        finally:
            call.cancel()


def failed(error: grpc.aio.AioRpcError) -> Failed:
    """What a failed call is told as."""
    told = dict(error.trailing_metadata() or ())
    kind = str(told.get("cellblock-error", "")) or error.code().name
    wait = str(told.get("retry-after-ms", ""))
    seconds = int(wait) / 1000 if wait.isascii() and wait.isdigit() and len(wait) < 10 else 0.0
    text = (error.details() or error.code().name)[:MAX_TOLD]
    return Failed(_STATUSES.get(error.code(), 502), kind, text, seconds)


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()
