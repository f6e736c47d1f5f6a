"""Fixtures of the tests that need an engine. A missing one is a failure that says so, never a skip."""

import os
import threading
from collections.abc import Iterator
from dataclasses import replace

# Before gRPC is loaded: what it does at a fork starts threads in the child, and some tests need a child with one.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import pytest
from hypothesis import settings

from orchestrator import Config
from orchestrator.errors import EngineError
from orchestrator.sandbox.engine import engine, find_image
from orchestrator.sandbox.leftovers import Listed, list_containers
from orchestrator.sandbox.lockdown import Owner
from orchestrator.stack.image import image_tag
from tests.waiting import eventually

pytest.register_assert_rewrite("tests.unit.model_cases")  # or its failed asserts would not say what was compared

# An example may take its time: on a loaded machine a moment says nothing of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def config() -> Config:
    """Settings of this machine; fails unless its engine answers and has the image."""
    config = Config.load()
    try:
        find_image(config, config.image or image_tag())
    except EngineError as error:
        pytest.fail(f"the container tests need an engine and the image: {error}", pytrace=False)
    return config


@pytest.fixture(scope="session")
def unconfined(config: Config) -> Config:
    """Without Landlock: user code sees /proc and can signal the warden, as on a kernel that has none."""
    return replace(config, landlock="off")


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What hanging tools and approvers wait for; set at the end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def mine(config: Config) -> list[Listed]:
    """The containers that this process made and that are still there."""
    return [found for found in list_containers(config) if found.owner == str(Owner.me())]


def none_of_mine(config: Config) -> None:
    """Waits until there is none: what a start or a close has given up is removed in the background."""
    eventually(lambda: not mine(config), lambda: f"containers left behind: {mine(config)}")


def processes_of_each(config: Config) -> list[dict[int, str]]:
    """Of each of these: every process but zombies, by the host's pid, with its state as ps writes it."""
    tables = [engine(config).top(container.id, ps_args="-eo pid,stat")["Processes"] for container in mine(config)]
    return [{int(pid): state for pid, state in rows if not state.startswith("Z")} for rows in tables]


@pytest.fixture(scope="module", autouse=True)
def no_container_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every module of container tests leaves none behind."""
    yield
    if request.node.get_closest_marker("docker"):
        none_of_mine(Config.load())
