"""What an app embeds to use an orchestrator service: sandboxes, runs, functions of its own. Needs grpcio and protobuf.

``Client`` for code that does not await, ``AsyncClient`` for code that does. See docs/service.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orchestrator.sandbox.grpc_quiet  # noqa: F401 - before the stubs load gRPC
from orchestrator.lazily import lazily

if TYPE_CHECKING:
    from orchestrator.client.client import AsyncClient, Client
    from orchestrator.client.sandbox import RemoteSandbox

__all__ = ["AsyncClient", "Client", "RemoteSandbox"]

_LAZY = {"AsyncClient": "client", "Client": "client", "RemoteSandbox": "sandbox"}
__getattr__ = lazily(__name__, _LAZY)
