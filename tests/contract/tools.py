"""Tools that count their calls, and code that catches what they raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator import Sandbox

Make = Callable[..., Sandbox]
# Below the tools' functions: any name can be called, as hostile code can.
RAW = "import sys\nraw = sys.stdout._send.__self__._calls.call\n"
CAUGHT = """
def caught(call, *args):
    try:
        return call(*args)
    except Exception as error:
        return f'{type(error).__name__}: {error}'
"""


class Spy:
    """A tool that counts its calls."""

    def __init__(self, name: str = "spy") -> None:
        self.name = name
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *args: Any) -> int:
        self.calls.append(args)
        return len(self.calls)


def endings(execution: Any) -> list[tuple[str, str]]:
    return [(call.name, str(call.ending)) for call in execution.tool_calls]
