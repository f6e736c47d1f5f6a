"""What this process has on the engine, for tests that nothing is left behind."""

from __future__ import annotations

import os

from orchestrator.config import Config
from orchestrator.sandbox.leftovers import list_containers
from orchestrator.sandbox.lockdown import Owner


def own_containers() -> set[str]:
    """The ids of the containers of this process."""
    return {found.id for found in list_containers(Config()) if found.owner == str(Owner.of(os.getpid()))}
