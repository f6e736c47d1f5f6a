"""The console: a page on 127.0.0.1 to watch and steer runs and sandboxes. See docs/console.md.

It is an app of the service's own API: what somebody may do here is what the token allows that he has logged in with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.lazily import lazily

if TYPE_CHECKING:
    from orchestrator.console.server import ConsoleServer
    from orchestrator.console.sessions import ConsoleSessions

__all__ = ["ConsoleServer", "ConsoleSessions"]

__getattr__ = lazily("orchestrator.console", {"ConsoleServer": "server", "ConsoleSessions": "sessions"})
