"""``python -m orchestrator.stack up|image|down``, as `make` calls it. A failure is one message, never a traceback."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import docker
import requests
from docker.errors import DockerException

from orchestrator.config import Config
from orchestrator.errors import CellblockError, EngineError, EngineUnavailable
from orchestrator.stack import dockerd, engine, image, places

OWNER_LABEL = "cellblock.owner"


def _say(line: str) -> None:
    print(line, flush=True)


def up(config: Config, base: str = "") -> None:
    """An engine that answers and the image on it."""
    client = engine.ensure_engine(_say, config.docker_host)
    image.ensure_image(client, _say, base)
    client.close()


def down(config: Config) -> None:
    """Nothing left of any session: no container, no socket, no file. Engine and images stay.

    Raises:
        EngineError: a container could not be removed; everything else has been.
    """
    failures: list[Exception] = []
    try:
        client = engine.connect(config.docker_host)
    except EngineUnavailable:
        _say("engine: none answers, so no container runs")
    else:
        failures = _remove_containers(client)
        client.close()
    folders = places.remove_session_folders(places.runtime_dir(config.runtime_dir))
    _say(f"removed {folders} session folders")
    if failures:
        raise EngineError(f"{len(failures)} containers could not be removed: {failures[0]}")
    if pid := dockerd.started_by_us():
        _say(f"the engine that `make up` started goes on (process {pid}); end it with: sudo kill {pid}")


def _remove_containers(client: docker.DockerClient) -> list[Exception]:
    """Why some could not be."""
    removed, failures = 0, list[Exception]()
    for container in client.api.containers(all=True, filters={"label": OWNER_LABEL}):
        try:
            removed += engine.discard(client.api, container["Id"])
        except (DockerException, requests.RequestException) as error:
            failures.append(error)
    _say(f"removed {removed} containers")
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the commands; 0, or 1 after a message."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.stack", description=__doc__)
    parser.add_argument("command", choices=["up", "image", "down"])
    parser.add_argument("--base", default="", help="base image to build from (default: the official Python image)")
    options = parser.parse_args(arguments)
    try:
        config = Config.load()
        if options.command == "down":
            down(config)
        else:
            up(config, options.base)
    except (CellblockError, DockerException, requests.RequestException) as error:
        print(f"cellblock: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
