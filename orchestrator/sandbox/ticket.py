"""What the next process of this user needs to go on with a sandbox that outlives its own: kept beside its socket.

The container does not see it: of a session's folder it has the folder of the socket alone. It goes with that folder.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor_api.v1 import executor_pb2 as pb

from orchestrator.config import Config, Limits
from orchestrator.errors import SandboxStartError
from orchestrator.sandbox import lockdown
from orchestrator.sandbox.folders import TICKET, entries, own_runtime_dir, owner_of, put
from orchestrator.sandbox.lockdown import owner_is_alive
from orchestrator.stack.places import session_of
from orchestrator.stack.runtimes import Runtime

MAX_NOTE = 4 << 20  # bytes, as a request to the service may have
MAX_TICKET = 16 << 20  # bytes of its file


@dataclass(frozen=True, slots=True)
class Ticket:
    """One container, as the process that started it knew it.

    Attributes:
        container: its id.
        session: what it was made with.
        runtime: that it runs in.
        token: that its executor knows.
        ready: what was found in force inside, before any code had run.
        settings: digest of what its executor was told, and of its limits.
        note: whatever the process wanted its successor to know.
    """

    container: str
    session: lockdown.Session
    runtime: Runtime
    token: bytes
    ready: bytes
    settings: str
    note: str

    def write(self, folder: Path) -> None:
        """Keeps it in the session's folder.

        Raises:
            SandboxStartError: it cannot be written.
        """
        data = dataclasses.asdict(self) | {"token": _text(self.token), "ready": _text(self.ready)}
        try:
            put(folder / TICKET, json.dumps(data))
        except OSError as error:
            raise SandboxStartError(f"the session's folder cannot be written: {error.strerror}") from None

    @classmethod
    def read(cls, folder: Path) -> Ticket | None:
        """The one in a session's folder, if there is one that can be read."""
        try:
            with (folder / TICKET).open("rb") as file:
                data = json.loads(file.read(MAX_TICKET))
            session = data["session"]
            return cls(
                container=str(data["container"]),
                session=lockdown.Session(**session | {"packages": tuple(session["packages"])}),
                runtime=Runtime(**data["runtime"]),
                token=base64.b64decode(data["token"]),
                ready=base64.b64decode(data["ready"]),
                settings=str(data["settings"]),
                note=str(data["note"]),
            )
        except (OSError, ValueError, TypeError, KeyError, RecursionError):  # of another version, perhaps
            return None


def digest_of(settings: Mapping[str, Any], limits: Limits) -> str:
    """The same for the same settings of an executor, and the same limits of its container."""
    told = pb.Open(**settings).SerializeToString(deterministic=True)
    return hashlib.sha256(told + json.dumps(dataclasses.asdict(limits), sort_keys=True).encode()).hexdigest()


def tickets(config: Config) -> list[Ticket]:
    """Those of sandboxes that a process has left which has ended without closing them.

    Raises:
        SandboxStartError: the folder of session folders cannot be used.
    """
    base = own_runtime_dir(config, make=False)
    folders = [path for path in sorted(entries(base)) if session_of(path.name) and not _has_owner(path)]
    found = [(path, Ticket.read(path)) for path in folders]
    return [ticket for path, ticket in found if ticket and ticket.session.id == path.name]


def _has_owner(folder: Path) -> bool:
    try:
        return owner_is_alive(owner_of(folder))
    except OSError:  # that cannot be told: then it is somebody's
        return True


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
