"""A real container whose supervisor has been taken over: its own end, and nothing else's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import Config, Sandbox
from orchestrator.errors import ProtocolViolation, SandboxDied
from orchestrator.sandbox import sandbox as module
from orchestrator.stack import engine
from orchestrator.stack.image import image_tag
from tests.archives import READABLE, packed
from tests.conftest import mine
from tests.waiting import eventually

pytestmark = pytest.mark.docker

PROGRAM = Path(__file__).parent / "image" / "compromised.py"
TARGET = "/opt/exec/lib/python3.13/compromised.py"
TAG = "cellblock-test-compromised"
DOCKERFILE = f"""FROM {{image}}
COPY compromised.py {TARGET}
ENTRYPOINT ["/opt/exec/bin/python3", "-I", "-S", "-B", "-X", "utf8", "{TARGET}"]
"""


@pytest.fixture(scope="module")
def compromised(config: Config) -> Iterator[Config]:
    """Settings with an image of the test's own: the executor's, and one file more."""
    client = engine.connect(config.docker_host)
    files = {"compromised.py": PROGRAM.read_bytes(), "Dockerfile": DOCKERFILE.format(image=image_tag()).encode()}
    context = packed({name: (content, READABLE) for name, content in files.items()})
    image, _ = client.images.build(fileobj=context, custom_context=True, tag=TAG, rm=True, network_mode="none")
    yield replace(config, image=str(image.id))
    client.images.remove(TAG)
    client.close()


ATTACKS: dict[str, tuple[type[Exception], str]] = {
    "flood": (ProtocolViolation, "more output than its cap"),
    "stall": (SandboxDied, "did not answer in time"),
    "garbage": (ProtocolViolation, "sent state_reply while executing"),
    "forge": (ProtocolViolation, "spoke of execution 2, not 1"),
    "die": (SandboxDied, "ended"),
    "refuse": (SandboxDied, "UNAVAILABLE"),
    "vanish": (SandboxDied, "ended"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_supervisor_that_was_taken_over_takes_nothing_with_it(
    attack: str, compromised: Config, config: Config, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "HOST_MARGIN", 1.0)
    error, text = ATTACKS[attack]
    with Sandbox(config=config) as neighbour, Sandbox(config=compromised, timeout=1) as sandbox:
        neighbour.run_code("kept = 6 * 7")
        with pytest.raises(error, match=text) as caught:
            sandbox.run_code(attack)
        assert str(caught.value).isprintable()
        assert not sandbox.is_running
        eventually(lambda: len(mine(config)) == 1, "its container is gone, and the neighbour's is not")
        assert neighbour.run_code("kept").value == 42
        with pytest.raises(SandboxDied, match="reset"):
            sandbox.run_code(attack)
    assert "\x1b" not in capfd.readouterr().err


def test_what_is_compromised_is_otherwise_the_real_thing(compromised: Config) -> None:
    """The isolation that is found at its start is read from the kernel, and is that of every sandbox."""
    with Sandbox(config=compromised) as sandbox:
        assert sandbox.isolation().complete
