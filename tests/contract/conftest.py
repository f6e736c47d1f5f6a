"""The backends that the contract is held against, and the sandbox that its tests share."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator import Config, Sandbox

BACKENDS: dict[str, Callable[..., Sandbox]] = {"docker": Sandbox}  # a later backend is one more entry
DEADLINE = 30.0  # seconds for anything that is waited for


def add(a: int, b: int = 2, *, c: int = 0) -> int:
    """Adds up."""
    return a + b + c


async def double(x: int) -> int:
    await asyncio.sleep(0)
    return 2 * x


def echo(value: Any) -> Any:
    return value


def fail(kind: str) -> None:
    raise {"ValueError": ValueError, "LookupError": LookupError, "Custom": CustomFailure}[kind]("the tool's own words")


class CustomFailure(Exception):
    pass


class Secretive:
    """Says nothing of what went wrong."""

    name = "secretive"
    expose_errors = False

    def __call__(self) -> None:
        raise RuntimeError("password=hunter2")


def unportable() -> dict[str, Any]:
    return {"a": [1, object()]}


TOOLS = [add, double, echo, fail, Secretive(), unportable]
IMPORTS = ["asyncio", "threading", "numpy", "numpy.*", "os", "signal", "sys", "tempfile"]
# Leaves a thread behind that counts ``n`` up a thousand times a second, while it may run.
COUNTING_THREAD = """
import threading, time
n = 0
def work():
    global n
    while True:
        n += 1
        time.sleep(0.001)
threading.Thread(target=work, daemon=True).start()
"""


@pytest.fixture(scope="module", params=BACKENDS)
def make(request: pytest.FixtureRequest, config: Config) -> Callable[..., Sandbox]:
    return BACKENDS[request.param]


@pytest.fixture(scope="module")
def sandbox(make: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    with make(tools=TOOLS, authorized_imports=IMPORTS, timeout=DEADLINE, env={"TZ": "Asia/Tokyo"}) as sandbox:
        yield sandbox
