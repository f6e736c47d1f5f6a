"""The image that the executor image is built from: the official Python one, or an equivalent of Debian's packages."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import requests
from docker.errors import APIError, ImageNotFound

from orchestrator.errors import EngineError
from orchestrator.stack import commands, debian
from orchestrator.stack.report import Report

OFFICIAL = "python:3.13-slim-trixie"
_LOCAL = "cellblock-base"
_REGISTRY_SECONDS = 10  # to answer at all
_PULL_SECONDS = 300  # between two lines of a pull
_BOOTSTRAP_SECONDS = 600

# The same Debian release and Python as the official image. `extract` unpacks the packages and runs none of their
# scripts: the build starts Python directly, and nothing of this image is left in the final one but what is copied.
_SUITE = "trixie"
_PACKAGES = "base-files,libc-bin,libstdc++6,python3.13-minimal,libpython3.13-stdlib"
_PYTHON = "/usr/local/bin/python3.13"  # where the official image has it
_RECIPE = (
    "--variant=extract",
    f"--include={_PACKAGES}",
    '--extract-hook=mkdir -p "$1/usr/local/bin"',
    f'--extract-hook=ln -sf /usr/bin/python3.13 "$1{_PYTHON}"',
)
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def local_tag() -> str:
    """The tag of the home-made base; another recipe has another tag."""
    digest = hashlib.sha256("\0".join((_SUITE, *_RECIPE)).encode()).hexdigest()
    return f"{_LOCAL}:{digest[:12]}"


def ensure_base(client: docker.DockerClient, report: Report, chosen: str = "") -> str:
    """The name of a base image that is on the engine; pulls or makes one if need be. Reports which it is.

    Raises:
        EngineError: no base can be had; the message says what was tried and what to install.
    """
    for name in (chosen,) if chosen else (OFFICIAL, local_tag()):
        if _is_present(client, name):
            report(f"base image: {name}")
            return name
    if chosen:
        client.images.pull(chosen)
        return chosen
    failure = _pull_failure(client, report)
    if not failure:
        return OFFICIAL
    report(f"base image: no registry ({failure}); making {local_tag()} from Debian's packages with mmdebstrap")
    return _make(client, report)


def _is_present(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True


def _pull_failure(client: docker.DockerClient, report: Report) -> str:
    """Pulls the official image; why it could not, or nothing."""
    try:
        with _patience(client, _REGISTRY_SECONDS):
            client.api.inspect_distribution(OFFICIAL)  # type: ignore[no-untyped-call]
        report(f"base image: pulling {OFFICIAL}")
        with _patience(client, _PULL_SECONDS):
            client.images.pull(OFFICIAL)
    except APIError as error:
        return str(error.explanation or error)
    except requests.Timeout:
        return f"no answer within {_REGISTRY_SECONDS} s"
    return ""


@contextmanager
def _patience(client: docker.DockerClient, seconds: int) -> Iterator[None]:
    before, client.api.timeout = client.api.timeout, seconds
    try:
        yield
    finally:
        client.api.timeout = before


def _make(client: docker.DockerClient, report: Report) -> str:
    _ensure_tools(report)
    architecture = str(client.version()["Arch"])  # Debian and Go agree on these names
    repository, _, tag = local_tag().partition(":")
    with tempfile.TemporaryDirectory(prefix="cellblock-base-") as folder:
        tar = f"{folder}/base.tar"
        # mmdebstrap chooses by itself: plain as root, user namespaces otherwise.
        command = ["mmdebstrap", "--quiet", f"--architectures={architecture}", *_RECIPE, _SUITE, tar]
        commands.run(command, seconds=_BOOTSTRAP_SECONDS)
        client.api.import_image_from_file(tar, repository=repository, tag=tag)
    if not _is_present(client, local_tag()):
        raise EngineError(f"the engine did not import the base image {local_tag()}")
    return local_tag()


def _ensure_tools(report: Report) -> None:
    missing = [] if shutil.which("mmdebstrap") else ["mmdebstrap"]
    if not _KEYRING.exists():  # Ubuntu trusts its own archive only
        missing.append("debian-archive-keyring")
    if not missing:
        return
    if not debian.can_install():
        raise EngineError(
            f"No registry has answered for {OFFICIAL}, and the base image cannot be made here without "
            f"{' and '.join(missing)}. Install that (and uidmap, if you are not root), or make a registry reachable."
        )
    debian.install(tuple(missing), report)
