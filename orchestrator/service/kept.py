"""Sandboxes that outlive the service: what each carries for the next one, what a crash has left until it is fetched.

After a crash their containers wait for one lease (see ``AsyncSandbox.outlive``). Those of apps are gone on with before
anybody is served; that of a run when the run is. What nobody has fetched by then is removed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.config import Config
from orchestrator.errors import CellblockError
from orchestrator.sandbox.container import Container
from orchestrator.sandbox.sandbox import AsyncSandbox
from orchestrator.sandbox.ticket import Ticket, tickets

_log = logging.getLogger(__name__)
_RUN, _APP = "run", "app"


@dataclass(frozen=True, slots=True)
class AppNote:
    """What a sandbox of an app's is made from again.

    Attributes:
        id: that the app knows it by.
        owner: whose it is.
        created: when, in seconds since the epoch.
        request: the CreateSandbox, serialised.
    """

    id: str
    owner: str
    created: float
    request: bytes

    def text(self) -> str:
        """For ``AsyncSandbox.outlive``."""
        request = base64.b64encode(self.request).decode()
        return json.dumps(
            {"for": _APP, "id": self.id, "owner": self.owner, "created": self.created, "request": request}
        )


def _read(note: str) -> AppNote | str:
    """The note of an app's sandbox, or the id of a run.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: it is another program's.
    """
    data = json.loads(note)
    if data["for"] == _RUN:
        return str(data["id"])
    if data["for"] != _APP:
        raise ValueError("a sandbox for nobody")
    request = base64.b64decode(data["request"])
    return AppNote(str(data["id"]), str(data["owner"]), float(data["created"]), request)


class Kept:
    """What a crash has left.

    Args:
        config: says where sessions are, and how long a lease is.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._runs: dict[str, Ticket] = {}
        self._apps: list[tuple[AppNote, Ticket]] = []
        self._found: set[str] = set()  # sessions of both

    async def find(self) -> None:
        """Looks for it. Without a folder of sessions there is none."""
        try:
            found = await asyncio.to_thread(tickets, self._config)
        except CellblockError as error:
            _log.warning("what a crash may have left cannot be looked for: %s", error)
            return
        for ticket in found:
            try:
                note = _read(ticket.note)
            except (ValueError, TypeError, KeyError, RecursionError):  # of another program that embeds sandboxes
                continue
            self._found.add(ticket.session.id)
            if isinstance(note, AppNote):
                self._apps.append((note, ticket))
            else:
                self._runs[note] = ticket

    def of_apps(self) -> list[tuple[AppNote, Ticket]]:
        """Those of apps, each once."""
        found, self._apps = self._apps, []
        return found

    def for_run(self, id: str) -> Callable[[AsyncSandbox], None]:
        """What readies the sandbox of a run, before it is started: it outlives the service, or is one that has."""

        def ready(sandbox: AsyncSandbox) -> None:
            sandbox.outlive(json.dumps({"for": _RUN, "id": id}), self._runs.pop(id, None))

        return ready

    async def remove_rest(self) -> None:
        """When the lease is over, removes what nobody has fetched: their executors have ended themselves, or hang."""
        if not self._found:
            return
        await asyncio.sleep(self._config.lease)
        self._runs, self._apps = {}, []
        try:
            left = await asyncio.to_thread(tickets, self._config)  # those that have no owner yet
        except CellblockError as error:
            _log.warning("what a crash has left cannot be removed: %s", error)
            return
        for ticket in left:
            if ticket.session.id in self._found:
                await self._remove(ticket)

    async def _remove(self, ticket: Ticket) -> None:
        try:
            await Container.taken_over(self._config, ticket).abandon()
        except CellblockError as error:  # its folder is gone, and so is it
            _log.info("a sandbox that a crash had left is gone: %s", error)
