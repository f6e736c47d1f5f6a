"""``python -m orchestrator.service``: a service in the foreground, as ``cellblock serve`` starts one."""

from __future__ import annotations

import asyncio
import sys

from orchestrator.configured import Settings
from orchestrator.errors import CellblockError, ConfigError
from orchestrator.sanitise import sanitise
from orchestrator.service.process import ServicePlaces
from orchestrator.service.serve import serve

USAGE, BROKEN = 2, 3  # as the exit codes of cellblock


def main() -> int:
    """Serves; gives the exit code."""
    try:
        settings = Settings()
        now = settings.current()
        asyncio.run(serve(settings, ServicePlaces.of(now.config, now.store)))
    except CellblockError as error:
        print(f"cellblock: {type(error).__name__}: {sanitise(str(error))}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else BROKEN
    return 0


if __name__ == "__main__":
    sys.exit(main())
