"""What the orchestrator service keeps: runs and their events, keys, tokens and usage, in one SQLite file."""

from __future__ import annotations

from orchestrator.store.store import Store
from orchestrator.store.stored import StoredEvent, StoredRun, StoredToken, StoredUsage

__all__ = ["Store", "StoredEvent", "StoredRun", "StoredToken", "StoredUsage"]
