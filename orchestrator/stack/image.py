"""Builds the executor image through the engine's own API: no BuildKit, no docker command, no network in the build."""

from __future__ import annotations

import re
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.images import Image

from orchestrator.errors import EngineError, ImageChanged, ImageMissing
from orchestrator.stack import base_image, context, pins, wheels
from orchestrator.stack.context import image_tag
from orchestrator.stack.report import Report

__all__ = ["checked_id", "ensure_image", "image_tag", "require_image"]

_BUILD_SECONDS = 600  # between two lines of the build's output; compiling byte code says nothing for a while
_LAST_LINES = 20
_STAGE_LABEL = "cellblock.stage=build"  # on what the build leaves as its cache; see the Dockerfile
_BASE_LABEL = "cellblock.base"
_SOURCES_LABEL = "cellblock.sources"  # the digest of what it was built from: the same as in its tag
# What is younger may belong to a build that runs now, or to another checkout. Layers are shared, so it costs little.
_KEEP = timedelta(days=1)


def require_image(client: docker.DockerClient, name: str = "") -> str:
    """The id of the executor image ``name`` (default: the one of these sources).

    Raises:
        ImageMissing: it has not been built on this engine.
        ImageChanged: what has its name now is another.
    """
    tag = name or image_tag()
    try:
        return checked_id(tag, client.images.get(tag).attrs)
    except ImageNotFound:
        raise ImageMissing(f"the image {tag} is not on this engine; run `make up` (or `make image`)") from None


def checked_id(name: str, inspected: Mapping[str, Any]) -> str:
    """The id of an image that the engine has inspected by ``name``; everything after that goes by the id.

    One of our own names has to be of the sources that are in the name, and the image that was built here, if one was.
    An image of another name is its owner's business, who can name it by digest.

    Raises:
        ImageChanged: it is another.
    """
    image_id = str(inspected["Id"])
    repository, _, digest = name.partition(":")
    if repository != context.REPOSITORY:
        return image_id
    sources = ((inspected.get("Config") or {}).get("Labels") or {}).get(_SOURCES_LABEL, "")
    kept = pins.pinned(name)
    if not sources or sources != digest.partition("-")[0]:  # what follows tells a variant that was made of it
        raise ImageChanged(f"{name} ({image_id}) was not built from these sources; run `make image`")
    if kept not in ("", image_id):
        raise ImageChanged(f"{name} is {image_id}, and the image that was built here is {kept}; run `make image`")
    return image_id


def ensure_image(client: docker.DockerClient, report: Report, base: str = "") -> str:
    """The tag of the executor image; builds it if the engine does not have it.

    Raises:
        EngineError: a base image, a wheel or the build itself failed; the message has the last lines.
    """
    tag = image_tag()
    try:
        pins.pin(tag, require_image(client, tag))
        report(f"executor image: {tag}")
        return tag
    except ImageChanged as error:
        report(f"executor image: {error}")
    except ImageMissing:
        pass
    report(f"executor image: building {tag}")
    try:
        base_name = base_image.ensure_base(client, report, base)
        folder = wheels.ensure_wheels(context.lock_files(), str(client.version()["Arch"]), report)
        used = _build(client, tag, base_name, folder, report)
        pins.pin(tag, str(client.images.get(tag).id))
        _remove_older(client, tag, used)
    except (DockerException, requests.RequestException) as error:
        raise EngineError(f"building the executor image failed: {error}") from None
    report(f"executor image: {tag} is built")
    return tag


def _build(client: docker.DockerClient, tag: str, base: str, wheel_folder: Path, report: Report) -> set[str]:
    """Builds and tags. Gives the ids of the images that took part."""
    files = context.our_files()
    files |= {f"wheels/{file.name}": file for file in sorted(wheel_folder.iterdir())}
    with tempfile.TemporaryFile() as archive:
        context.pack(files, archive)
        archive.seek(0)
        stream = client.api.build(
            fileobj=archive,
            custom_context=True,
            dockerfile="executor_image/Dockerfile",
            tag=tag,
            buildargs={"BASE_IMAGE": base},
            labels={_BASE_LABEL: base, _SOURCES_LABEL: tag.partition(":")[2]},
            network_mode="none",
            use_config_proxy=False,
            rm=True,
            forcerm=True,
            decode=True,
            timeout=_BUILD_SECONDS,
        )
        return _follow(stream, report)


def _follow(stream: Iterator[dict[str, Any]], report: Report) -> set[str]:
    """Reports each step. Gives the image ids that the builder names.

    Raises:
        EngineError: a step failed.
    """
    last: deque[str] = deque(maxlen=_LAST_LINES)
    ids: set[str] = set()
    for event in stream:
        if "error" in event:
            raise EngineError("building the executor image failed:\n" + "\n".join([*last, str(event["error"])]))
        for line in filter(None, map(_plain, str(event.get("stream", "")).splitlines())):
            last.append(line)
            ids.update(re.findall(r"^---> ([0-9a-f]{12})$", line))
            if line.startswith("Step "):
                report(f"  {line}")
    return ids


def _plain(line: str) -> str:
    """Without the colours that the builder gives to what went to stderr."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line).strip()


def _remove_older(client: docker.DockerClient, tag: str, used: set[str]) -> None:
    """Removes what earlier builds left; what a container uses stays."""
    for name in _left_by_earlier_builds(client, tag, used):
        try:
            client.images.remove(name)
        except APIError as error:
            if error.status_code not in (404, 409):  # gone meanwhile; in use by a container or a newer build
                raise


def _left_by_earlier_builds(client: docker.DockerClient, tag: str, used: set[str]) -> list[str]:
    """Executor images of other sources by their tags, then the cache of their builds by their ids."""
    images = [image for image in client.images.list(name=context.REPOSITORY) if _is_old(image)]
    tags = [name for image in images for name in image.tags if name != tag]
    cache = client.images.list(filters={"dangling": True, "label": _STAGE_LABEL})
    return tags + [str(image.id) for image in cache if _is_old(image) and _short(image.id) not in used]


def _is_old(image: Image) -> bool:
    created = datetime.fromisoformat(str(image.attrs["Created"])[:19] + "+00:00")  # nanoseconds and Z cut off
    return datetime.now(UTC) - created > _KEEP


def _short(image_id: object) -> str:
    return str(image_id).removeprefix("sha256:")[:12]
