"""Code that hears no interrupt, and a timeout that comes when it has got so far."""

from __future__ import annotations

from orchestrator import Execution, Sandbox
from tests.endings import tried

# One call that never looks at signals. An interrupt that comes while it says that it is there, or right after, leaves
# by way of that call, too.
DEAF = "r = range(10**12)\ntry: print('on')\nfinally: sum(r)"


def timed_out(sandbox: Sandbox, code: str = DEAF) -> Execution:
    """How code ends that prints "on" when it hears nothing any more, or would not end.

    On a busy machine the time may be up before it has got so far. Then it is run again.
    """
    return tried(lambda: sandbox.run_code(code, timeout=0.3), lambda ended: "on" not in ended.logs.stdout)
