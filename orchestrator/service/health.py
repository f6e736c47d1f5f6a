"""Whether it serves, by the standard ``grpc.health.v1``; and what it serves, by reflection, if that is set on.

Needs the extra ``service``. Who asks for health needs no token, so what a stranger can make grow is bounded.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.errors import missing_extra
from orchestrator.sandbox.grpc_quiet import grpc

MAX_WATCHERS = 64  # at the same time: load balancers and the like, of which there are few
SERVICES = tuple(sorted(service.full_name for service in pb.DESCRIPTOR.services_by_name.values()))


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise missing_extra("the service", "grpcio-health-checking and grpcio-reflection", "service") from None


class Health:
    """The health of a server: of all of it (the empty name) and of each of its services, which is the same.

    Args:
        server: the service's, not started yet.
        serves: from the beginning; else from ``serve()`` on.

    Raises:
        ConfigError: grpcio-health-checking is not installed.
    """

    def __init__(self, server: grpc.aio.Server, *, serves: bool = True) -> None:
        messages = _needed("grpc_health.v1.health_pb2")
        methods = _needed("grpc_health.v1.health_pb2_grpc")
        self._servicer = _servicer(methods.HealthServicer, messages, serves)
        methods.add_HealthServicer_to_server(self._servicer, server)

    def serve(self) -> None:
        """SERVING from now on."""
        self._servicer.change(serves=True)

    def drain(self) -> None:
        """NOT_SERVING from now on, for good: nobody should send it new work."""
        self._servicer.change(serves=False)


def enable_reflection(server: grpc.aio.Server) -> None:
    """Lets whoever has a token ask the server for its services and messages.

    Raises:
        ConfigError: grpcio-reflection is not installed.
    """
    reflection = _needed("grpc_reflection.v1alpha.reflection")
    reflection.enable_server_reflection((*SERVICES, reflection.SERVICE_NAME, "grpc.health.v1.Health"), server)


def _servicer(base: Any, messages: Any, serves: bool) -> Any:
    """That of the package holds a lock while it writes to a watcher: one who does not read would keep it from draining.

    So this is one of our own, for its messages.
    """

    class Servicer(base):  # type: ignore[misc]  # of a package that is looked up when it is needed
        def __init__(self) -> None:
            self._serves = serves
            self._change = asyncio.Event()  # of what was last told; another one after that
            self._watchers = 0

        def change(self, *, serves: bool) -> None:
            self._serves = serves
            self._change.set()
            self._change = asyncio.Event()

        def _status(self, service: str, unknown: Any) -> Any:
            if service and service not in SERVICES:
                return unknown
            kinds = messages.HealthCheckResponse
            return kinds.SERVING if self._serves else kinds.NOT_SERVING

        async def Check(self, request: Any, context: Any) -> Any:
            status = self._status(request.service, None)
            if status is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
            return messages.HealthCheckResponse(status=status)

        async def List(self, request: Any, context: Any) -> Any:
            statuses = {name: messages.HealthCheckResponse(status=self._status(name, None)) for name in ("", *SERVICES)}
            return messages.HealthListResponse(statuses=statuses)

        async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
            if self._watchers >= MAX_WATCHERS:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many are watching")
            self._watchers += 1
            try:
                told = None
                while True:  # until the watcher goes, or the server
                    change = self._change
                    status = self._status(request.service, messages.HealthCheckResponse.SERVICE_UNKNOWN)
                    if status != told:
                        yield messages.HealthCheckResponse(status=status)
                        told = status
                    await change.wait()
            finally:
                self._watchers -= 1

    return Servicer()
