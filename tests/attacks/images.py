"""The images that are attacked: the executor image with canaries in it, and the same with ctypes for native code.

Built through the engine's API when they are not there. They have a repository of their own: an image under the
executor's name is refused unless it is of its sources. When an executor image has gone, those of it go too.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from contextlib import suppress
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound

from orchestrator.stack import engine
from orchestrator.stack.context import REPOSITORY, image_tag
from tests.archives import READABLE, packed
from tests.attacks.native import library

BUILD_SECONDS = 120
_REPOSITORY = "cellblock-attacks"
SECRET, OPEN, ENVIRONMENT = b"CANARY-S-9c1f0b7e2d64", b"CANARY-O-4e8a6d1c5b93", b"CANARY-E-7b25e0f9a1c8"
# i386's system call, from a 64-bit process: mov eax, edi; int 0x80; ret
_INT_80 = library("int80", bytes.fromhex("89f8cd80c3"))

# In PATH: any other variable of an image's, the host refuses when it compares the container with what it asked for.
_CANARIES = """
FROM {executor}
COPY canary /canary
ENV PATH=/{environment}
"""
_NATIVE = """
FROM {canaries}
COPY native /opt/py/lib/python3.13
"""
_STDLIB = "/opt/exec/lib/python3.13"
# What the runner's Python is made without, and the supervisor's has.
_NATIVE_MODULES = ("_ctypes.", "_interpreters.")


def canary_image() -> str:
    """The name of the executor image with canaries; built unless it is there."""
    recipe = _CANARIES.format(executor=image_tag(), environment=ENVIRONMENT.decode())
    files = {
        "canary/secret": (SECRET + b"\n", 0o400),
        "canary/open": (OPEN + b"\n", 0o444),
    }
    return _ensure("canary", recipe, files)


def native_image() -> str:
    """The name of the same with ctypes in the runner's Python; built unless it is there."""
    canaries = canary_image()
    recipe = _NATIVE.format(canaries=canaries)
    name = _name("native", recipe)
    client = engine.connect()
    try:
        if not _is_there(client, name):
            files = {**_native_modules(client, canaries), "native/lib-dynload/int80.so": (_INT_80, 0o755)}
            _build(client, name, recipe, files)
    finally:
        client.close()
    return name


def _name(kind: str, *recipe: str) -> str:
    digest = hashlib.sha256("\0".join((*recipe, str(_INT_80))).encode()).hexdigest()[:8]
    return f"{_REPOSITORY}:{image_tag().partition(':')[2]}-{kind}-{digest}"


def _ensure(kind: str, recipe: str, files: dict[str, tuple[bytes, int]]) -> str:
    name = _name(kind, recipe)
    client = engine.connect()
    try:
        if not _is_there(client, name):
            _build(client, name, recipe, files)
    finally:
        client.close()
    return name


def _is_there(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True


def _remove_older(client: docker.DockerClient) -> None:
    """Those whose executor image is not on the engine any more."""
    tags = [tag for image in client.images.list(name=_REPOSITORY) for tag in image.tags]
    for tag in tags:
        digest = tag.partition(":")[2].partition("-")[0]
        if not _is_there(client, f"{REPOSITORY}:{digest}"):
            with suppress(APIError):  # gone meanwhile, or in use by a container
                client.images.remove(tag)


def _build(client: docker.DockerClient, name: str, recipe: str, files: dict[str, tuple[bytes, int]]) -> None:
    events: Any = client.api.build(
        fileobj=packed({"Dockerfile": (recipe.encode(), READABLE), **files}),
        custom_context=True,
        tag=name,
        network_mode="none",
        use_config_proxy=False,
        rm=True,
        forcerm=True,
        decode=True,
        timeout=BUILD_SECONDS,
    )
    errors = [event["error"] for event in events if "error" in event]
    assert not errors, errors
    _remove_older(client)


def _native_modules(client: docker.DockerClient, image: str) -> dict[str, tuple[bytes, int]]:
    """ctypes and its native half, as the supervisor's Python has them, made readable to all."""
    container = client.api.create_container_from_config({"Image": image, "NetworkDisabled": True})["Id"]
    try:
        found: dict[str, tuple[bytes, int]] = {}
        for folder in ("ctypes", "lib-dynload"):
            stream, _ = client.api.get_archive(container, f"{_STDLIB}/{folder}")
            with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
                for entry in tar:
                    file = tar.extractfile(entry) if entry.isfile() else None
                    wanted = folder == "ctypes" or entry.name.split("/")[-1].startswith(_NATIVE_MODULES)
                    if file and wanted:
                        found[f"native/{entry.name}"] = (file.read(), 0o755 if entry.name.endswith(".so") else 0o644)
        return found
    finally:
        client.api.remove_container(container, force=True)
