"""A registry out of reach is no obstacle; where nothing else can be done either, the message says what to do."""

from collections.abc import Iterator

import docker
import pytest

from orchestrator.errors import EngineError
from orchestrator.stack import base_image, debian, engine

pytestmark = pytest.mark.docker

UNREACHABLE = "127.0.0.1:9/library/python:3.13-slim-trixie"  # the discard port of this machine: nobody listens


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[docker.DockerClient]:
    """An engine without any base image: the official one out of reach, the home-made one of another recipe."""
    monkeypatch.setattr(base_image, "OFFICIAL", UNREACHABLE)
    monkeypatch.setattr(base_image, "_RECIPE", (*base_image._RECIPE, '--aptopt=Acquire::Retries "2"'))
    client = engine.connect()
    yield client
    if base_image._is_present(client, base_image.local_tag()):
        client.images.remove(base_image.local_tag(), force=True)
    client.close()


def test_without_a_registry_the_base_is_made_of_debians_packages(client: docker.DockerClient) -> None:
    said: list[str] = []
    made = base_image.ensure_base(client, said.append)
    assert made == base_image.local_tag()
    assert any("no registry" in line for line in said)
    assert base_image.ensure_base(client, said.append) == made
    assert said[-1] == f"base image: {made}"


def test_without_a_registry_and_without_the_tools_the_message_says_what_to_install(
    client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(debian, "can_install", lambda: False)
    with pytest.raises(EngineError, match="without mmdebstrap") as caught:
        base_image.ensure_base(client, lambda _: None)
    assert UNREACHABLE in str(caught.value)
