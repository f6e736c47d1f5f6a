"""cellblock: run untrusted agent code in a locked-down container, with an agent layer on top.

Names are looked up when they are first used, so that what needs only a part (the command line, ``make up``) does not
wait for gRPC or a model's client to be imported.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "AsyncSandbox": "orchestrator.sandbox",
    "Config": "orchestrator.config",
    "Limits": "orchestrator.config",
    "Sandbox": "orchestrator.sandbox",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
