"""Sandboxes: a container and its session. Nothing here knows of agents or models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.lazily import lazily
from orchestrator.portal import Portal

if TYPE_CHECKING:
    from orchestrator.sandbox.blocking import Sandbox
    from orchestrator.sandbox.files import FileEntry
    from orchestrator.sandbox.sandbox import AsyncSandbox
    from orchestrator.sandbox.state import Checkpoint, Rollback
    from orchestrator.sandbox.values import NDArray, Opaque, Table

__all__ = ["AsyncSandbox", "Checkpoint", "FileEntry", "NDArray", "Opaque", "Portal", "Rollback", "Sandbox", "Table"]

_LAZY = {
    "AsyncSandbox": "sandbox",
    "Checkpoint": "state",
    "FileEntry": "files",
    "NDArray": "values",
    "Opaque": "values",
    "Rollback": "state",
    "Sandbox": "blocking",
    "Table": "values",
}
__getattr__ = lazily(__name__, _LAZY)
