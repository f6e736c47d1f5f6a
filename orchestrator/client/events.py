"""Events and values that the service sends, as the client reads them."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.agents.event_json import event_from_json
from orchestrator.agents.run import RunEvent
from orchestrator.agents.value_json import one_file, read
from orchestrator.errors import AgentError, ServiceError


def event_of(data: bytes) -> RunEvent:
    """The event that was sent as ``data``.

    Raises:
        ServiceError: it is none.
    """
    try:
        return event_from_json(data)
    except AgentError as error:
        raise ServiceError(f"the service sent an event that cannot be read: {error}") from None


def value_of(data: bytes) -> Any:
    """The value that was sent as JSON.

    Raises:
        ServiceError: it is none.
    """
    try:
        with one_file():
            return read(json.loads(data))
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise ServiceError(f"the service sent a value that cannot be read: {type(error).__name__}") from None
