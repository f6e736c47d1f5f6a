"""Statuses as errors. The name that the service gives chooses from a fixed table; nothing else is looked up."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from orchestrator import errors
from orchestrator.errors import (
    AccessDenied,
    CellblockError,
    NotFound,
    Overloaded,
    SandboxDied,
    ServiceError,
    ServiceUnavailable,
)
from orchestrator.sandbox.grpc_quiet import grpc

NAMES: Mapping[str, type[CellblockError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, CellblockError) and kind.__module__ == errors.__name__
}
MAX_WAIT = 3600.0  # seconds that a service may ask its callers to wait
_BY_CODE: Mapping[grpc.StatusCode, type[CellblockError]] = {
    grpc.StatusCode.UNAVAILABLE: ServiceUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: ServiceUnavailable,
    grpc.StatusCode.CANCELLED: ServiceUnavailable,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
}
# What gRPC itself says of a connection that broke; the last two depend on what was being done when it did. The service
# names an error, be it none, with every status of its own.
_LOST = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


def error_of(error: grpc.aio.AioRpcError) -> CellblockError:
    """What a failed call is told as."""
    told, text = metadata_of(error), error.details() or error.code().name
    kind = NAMES.get(told.get("cellblock-error", ""))
    if kind is Overloaded or (kind is None and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED):
        return Overloaded(text, _seconds(told.get("retry-after-ms", "")))
    made = (kind or _BY_CODE.get(error.code(), ServiceError))(text)
    if cause := NAMES.get(told.get("cellblock-cause", "")):
        made.__cause__ = cause(text) if issubclass(cause, SandboxDied | errors.ProtocolViolation) else None
    return made


def is_loss(error: grpc.aio.AioRpcError) -> bool:
    """Whether the connection failed, and not the call: nobody knows whether it has arrived."""
    if "cellblock-error" in metadata_of(error):
        return False
    return error.code() in _LOST


def was_never_sent(error: grpc.aio.AioRpcError) -> bool:
    """Whether a lost call has certainly not arrived, as there was no connection that it could have been sent over."""
    details = error.details() or ""
    return error.code() is grpc.StatusCode.UNAVAILABLE and details.startswith("failed to connect to all addresses")


def metadata_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """What came with the status."""
    return dict(error.trailing_metadata() or ())


def _seconds(milliseconds: str) -> float:
    return min(int(milliseconds) / 1000, MAX_WAIT) if milliseconds.isascii() and milliseconds.isdigit() else 1.0
