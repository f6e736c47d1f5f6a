"""Errors as statuses: what a method raises is told as what it is, and what it never should have raised as nothing."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, NoReturn

from orchestrator import errors
from orchestrator.errors import CellblockError
from orchestrator.sandbox.grpc_quiet import grpc

MAX_DETAILS = 4_000  # bytes of a message: it travels among the metadata, three times as long where it is no ASCII
_log = logging.getLogger(__name__)
_Code = grpc.StatusCode
# The first that it is one of. None is UNAVAILABLE: a client takes that for a lost connection, and asks again.
_CODES: Sequence[tuple[type[CellblockError], grpc.StatusCode]] = (
    (errors.NotFound, _Code.NOT_FOUND),
    (errors.AccessDenied, _Code.PERMISSION_DENIED),
    (errors.Overloaded, _Code.RESOURCE_EXHAUSTED),
    (errors.TooManySandboxes, _Code.RESOURCE_EXHAUSTED),
    (errors.ConfigError, _Code.INVALID_ARGUMENT),
    (errors.ToolError, _Code.INVALID_ARGUMENT),
    (errors.ValueNotPortable, _Code.INVALID_ARGUMENT),
    (errors.SandboxDied, _Code.ABORTED),
    (errors.SandboxError, _Code.FAILED_PRECONDITION),
    (errors.EngineError, _Code.FAILED_PRECONDITION),
    (errors.AgentError, _Code.FAILED_PRECONDITION),
)


class Failures(grpc.aio.ServerInterceptor):
    """The innermost interceptor of the server. ``heard`` is told of each error before it is told to the caller."""

    def __init__(self, heard: Callable[[Exception], object] = lambda error: None) -> None:
        self._heard = heard

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Puts the translation around the method's handler."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        make = _streaming if handler.response_streaming else _answering
        return make(handler, self._heard)


def _answering(handler: Any, heard: Callable[[Exception], object]) -> Any:
    kept = handler.stream_unary if handler.request_streaming else handler.unary_unary

    async def answer(request: Any, context: Any) -> Any:
        try:
            return await kept(request, context)
        except Exception as error:  # noqa: BLE001 - all there are end here
            heard(error)
            await _refuse(context, error)

    make = grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
    return make(answer, handler.request_deserializer, handler.response_serializer)


def _streaming(handler: Any, heard: Callable[[Exception], object]) -> Any:
    kept = handler.stream_stream if handler.request_streaming else handler.unary_stream

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            given = kept(request, context)
            if not inspect.isasyncgen(given):  # it writes its messages itself
                await given
                return
            async with aclosing(given) as messages:
                async for message in messages:
                    yield message
        except Exception as error:  # noqa: BLE001 - all there are end here
            heard(error)
            await _refuse(context, error)

    make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
    return make(stream, handler.request_deserializer, handler.response_serializer)


async def _refuse(context: Any, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):  # the method has chosen its status itself
        raise error
    told = list(context.trailing_metadata() or ())
    if isinstance(error, CellblockError):
        code = next((code for of, code in _CODES if isinstance(error, of)), _Code.INTERNAL)
        details, kind = _details(error), named(error)
    else:  # the caller is told nothing of what is inside the service
        _log.error("a call failed", exc_info=error)
        code, details, kind = _Code.INTERNAL, "the service failed; its log says why", [("cellblock-error", "")]
    await context.abort(code, details, (*told, *kind))
    raise AssertionError  # abort() has raised


def named(error: CellblockError) -> list[tuple[str, str]]:
    """The metadata that tell which error it is."""
    told = [("cellblock-error", _public(error))]
    if isinstance(error.__cause__, errors.SandboxError):
        told.append(("cellblock-cause", _public(error.__cause__)))
    if isinstance(error, errors.Overloaded):
        told.append(("retry-after-ms", str(round(error.retry_after * 1000) + 1)))
    return told


def _public(error: CellblockError) -> str:
    """The name of its class, or of the nearest one above that is in errors.py."""
    names: Iterator[str] = (k.__name__ for k in type(error).__mro__ if getattr(errors, k.__name__, None) is k)
    return next(names)


def _details(error: CellblockError) -> str:
    return str(error).encode("utf-8", "replace")[:MAX_DETAILS].decode("utf-8", "ignore")
