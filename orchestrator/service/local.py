"""The service of this user, as the command line asks it: over its socket, with everything allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from google.protobuf.message import Message
from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.client import Client
from orchestrator.config import Config
from orchestrator.errors import CellblockError, ServiceUnavailable
from orchestrator.portal import Portal
from orchestrator.service.process import ServicePlaces

PATIENCE = 5.0  # seconds for a service that is there to answer


@contextmanager
def local_client(config: Config) -> Iterator[Client]:
    """A client of it.

    Raises:
        ServiceUnavailable: none runs.
    """
    socket = ServicePlaces.of(config).socket
    if not socket.is_socket():
        raise ServiceUnavailable(
            f"no service runs here (there is no {socket}); 'cellblock serve' or 'make up' starts one"
        )
    with Client(f"unix:{socket}", patience=PATIENCE) as client:
        yield client


def ask_service(config: Config, method: str, request: Message) -> Any:
    """What it answers to one request. Raises as ``local_client``, and as ``AsyncConnection.ask``."""
    with local_client(config) as client:
        return Portal.run(client.asynchronous.connection.ask("Service", method, request))


def status(config: Config) -> pb.ServiceStatus | None:
    """How it is; None if none answers."""
    try:
        found: pb.ServiceStatus = ask_service(config, "Status", pb.StatusRequest())
    except ServiceUnavailable:
        return None
    return found


def answers(config: Config) -> bool:
    """Whether it does."""
    try:
        return status(config) is not None
    except CellblockError:
        return False
