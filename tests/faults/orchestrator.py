"""An orchestrator that stops at a moment, to be killed there: ``python -m tests.faults.orchestrator MOMENT CONFIG``.

Says what it does as lines of JSON: ``{"made": …}`` for each session, ``{"at": MOMENT}`` when it is there. Without a
moment (``-``) it lives one life after the other.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import Any

from orchestrator import Config
from orchestrator.sandbox import lockdown
from tests.faults.moments import at, live
from tests.faults.traces import Made


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def tell_of_sessions() -> None:
    original = lockdown.Session.__init__

    def told(session: lockdown.Session, *args: Any, **kwargs: Any) -> None:
        original(session, *args, **kwargs)
        say(made=Made.of(session).as_dict())

    lockdown.Session.__init__ = told  # type: ignore[method-assign]


def stop(moment: str) -> None:
    """For good: this thread goes no further, whatever others do."""
    say(at=moment)
    threading.Event().wait()


def main(moment: str, config: Config) -> None:
    tell_of_sessions()
    if moment == "-":
        say(at="-")
        while True:
            asyncio.run(live(config, lambda _: None))
    with at(moment, lambda: stop(moment)) as reached:
        asyncio.run(live(config, reached))
    raise SystemExit(f"{moment!r} never came")


if __name__ == "__main__":
    main(sys.argv[1], Config(**json.loads(sys.argv[2])))
