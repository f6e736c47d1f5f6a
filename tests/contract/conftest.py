"""The backends that the contract is held against, and the sandbox that its tests share."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import Client, Config, Sandbox
from tests.serving import Serving

BACKENDS = ("docker", "service")  # in this process; the same over the API of a service
# Of a test that reaches into what only a sandbox of this process has, or whose suite takes too long for twice.
in_process = pytest.mark.parametrize("make", ["docker"], indirect=True)
DEADLINE = 30.0  # seconds for anything that is waited for
LONG_GRACE = 5.0  # seconds to hear an interrupt, where it has to be heard on a busy machine too


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
# Leaves a thread behind that ticks a thousand times a second, while it may run.
TICKING_THREAD = """
import threading, time
ticks = []
def work():
    while True:
        ticks.append(time.monotonic())
        time.sleep(0.001)
threading.Thread(target=work, daemon=True).start()
"""
# Lets it tick on, and gives the longest time, in seconds, that it could not, since this was last asked. A number of
# ticks would tell less: how many there are in the time that it takes to stop a thread is up to the machine.
LONGEST_STOP = """
seen = len(ticks)
while len(ticks) < seen + 50: time.sleep(0.01)
longest = max(b - a for a, b in zip(ticks, ticks[1:]))
del ticks[:-1]
longest
"""


class Services:
    """Makes sandboxes at services of this process: one for each ``config``, which is a service's matter."""

    def __init__(self) -> None:
        self._made: dict[Config, tuple[Serving, Client]] = {}

    def __call__(self, config: Config | None = None, **settings: Any) -> Sandbox:
        config = config or Config.load()
        if config not in self._made:
            serving = Serving(config)
            self._made[config] = serving, Client(serving.address)
        return self._made[config][1].sandbox(**settings)

    def close(self) -> None:
        for serving, client in self._made.values():
            client.close()
            serving.close()


@pytest.fixture(scope="module", params=BACKENDS)
def make(request: pytest.FixtureRequest, config: Config) -> Iterator[Callable[..., Sandbox]]:
    if request.param == "docker":
        yield Sandbox
        return
    services = Services()
    yield services
    services.close()


@pytest.fixture(scope="module")
def sandbox(make: Callable[..., Sandbox], config: Config) -> Iterator[Sandbox]:
    patient = replace(config, grace=LONG_GRACE)
    settings = {"tools": TOOLS, "authorized_imports": IMPORTS, "timeout": DEADLINE, "env": {"TZ": "Asia/Tokyo"}}
    with make(config=patient, **settings) as sandbox:
        yield sandbox


@pytest.fixture
def box(make: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """A sandbox of the test's own: its executions are counted from 1."""
    with make(authorized_imports=IMPORTS, timeout=20) as sandbox:
        yield sandbox


def names(sandbox: Sandbox) -> list[str]:
    return sorted(entry.path for entry in sandbox.files.list())
