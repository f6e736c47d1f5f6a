"""Sandboxes: a container and its session. Nothing here knows of agents or models."""

from orchestrator.sandbox.blocking import Sandbox
from orchestrator.sandbox.files import FileEntry
from orchestrator.sandbox.portal import Portal
from orchestrator.sandbox.sandbox import AsyncSandbox
from orchestrator.sandbox.state import Checkpoint, Rollback
from orchestrator.sandbox.values import NDArray, Opaque

__all__ = ["AsyncSandbox", "Checkpoint", "FileEntry", "NDArray", "Opaque", "Portal", "Rollback", "Sandbox"]
