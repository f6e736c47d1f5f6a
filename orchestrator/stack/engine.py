"""The Docker engine: use the one that answers; where none does and this machine allows it, bring one up."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.utils import kwargs_from_env

from orchestrator.errors import EnginePermission, EngineUnavailable
from orchestrator.stack import dockerd
from orchestrator.stack.report import Report

SYSTEM_SOCKET = "/var/run/docker.sock"
_UNIX = "unix://"
_PROBE_SECONDS = 5.0  # a local socket answers at once or not at all
_REQUEST_SECONDS = 60.0  # for one answer of the engine; long streams (build, pull) ask for more
_CONFLICT = 409  # "removal is already in progress"

_NO_ENGINE = """No Docker engine answers at {address} ({reason}).
Install and start one (Debian, Ubuntu: `sudo apt-get install docker.io`; others: see \
https://docs.docker.com/engine/install/), or set DOCKER_HOST to one that runs."""
_NO_PERMISSION = """A Docker engine is at {address}, and this user may not use it.
Run `sudo usermod -aG docker "$USER"` and log in again, or use a rootless engine through DOCKER_HOST. \
Note that members of that group can become root."""


def address(docker_host: str = "") -> str:
    """The engine's address: the setting, DOCKER_HOST, the system's socket, or a rootless one if that alone exists."""
    chosen = docker_host or os.environ.get("DOCKER_HOST", "")
    if chosen:
        return chosen
    rootless = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent", "docker.sock")
    only_rootless = rootless.exists() and not Path(SYSTEM_SOCKET).exists()
    return f"{_UNIX}{rootless if only_rootless else SYSTEM_SOCKET}"


def connect(docker_host: str = "") -> docker.DockerClient:
    """A client of the engine that answers. The caller closes it.

    Raises:
        EnginePermission: an engine is there, and this user may not talk to it.
        EngineUnavailable: none answers.
    """
    where = address(docker_host)
    if where.startswith(_UNIX):
        _probe_socket(where)
    try:
        settings: dict[str, Any] = {**kwargs_from_env(), "base_url": where, "timeout": _REQUEST_SECONDS}
        client = docker.DockerClient(**settings)
        client.ping()
    except (DockerException, requests.RequestException, OSError, ValueError) as error:  # also settings that are none
        raise EngineUnavailable(_NO_ENGINE.format(address=where, reason=error)) from None
    return client


def _probe_socket(where: str) -> None:
    """The client library hides the reason of a failed connect in text; the socket itself tells it plainly."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(where.removeprefix(_UNIX))
        except PermissionError:
            raise EnginePermission(_NO_PERMISSION.format(address=where)) from None
        except OSError as error:
            raise EngineUnavailable(_NO_ENGINE.format(address=where, reason=error.strerror or error)) from None


def ensure_engine(report: Report, docker_host: str = "") -> docker.DockerClient:
    """A client of an engine that answers, which is installed and started first where that is needed and allowed.

    Only the system's own engine is ever started: an address that somebody chose is somebody's business.

    Raises:
        EnginePermission: see ``connect``.
        EngineUnavailable: none answers, and none can be brought up here; the message says what to do.
        EngineError: installing or starting failed; the message says how.
    """
    try:
        client = connect(docker_host)
    except EngineUnavailable:
        if address(docker_host) != _UNIX + SYSTEM_SOCKET or not dockerd.can_bring_up():
            raise
        dockerd.bring_up(report, SYSTEM_SOCKET)
        client = connect(docker_host)
    report(f"engine: Docker {client.version()['Version']} at {address(docker_host)}")
    return client


def discard(api: Any, container: str) -> bool:
    """Kills and removes a container; returns when it is gone, also if it or somebody else removes it meanwhile.

    False: there was none.

    Raises:
        DockerException, requests.RequestException: the engine failed.
    """
    try:
        api.remove_container(container, force=True, v=True)
    except NotFound:
        return False
    except APIError as error:
        if error.status_code != _CONFLICT:
            raise
        with suppress(NotFound):
            api.wait(container, condition="removed", timeout=_REQUEST_SECONDS)
    return True
