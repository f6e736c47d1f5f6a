"""Gradio apps as tools: a Space of the hub, or any app by its address; and the old tools of the gradio_tools package.

An app is hostile. gradio_client reads and sends the file of every path that it finds, in arguments and in the app's
own defaults, and fetches what the app names from wherever the app says, with the token. So it is shown no path but
those of files written here for it, and the files of a result are fetched here, from the app's own address only.
"""

from __future__ import annotations

import concurrent.futures
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from orchestrator.errors import ConfigError, ToolError, ToolUnavailable, missing_extra
from orchestrator.media import AgentAudio, AgentImage, Media, media_of, mime_of
from orchestrator.sanitise import one_line
from orchestrator.tools.foreign_schema import python_name
from orchestrator.tools.schema import hinted_signature, type_schema
from orchestrator.tools.schema_tool import SchemaTool, as_json

CALL_TIMEOUT = 600.0  # seconds: a Space may have to wake up, and others wait in its queue
HTTP_TIMEOUT = 60.0  # seconds for one request
MAX_FILE = 32 << 20  # bytes of one file of a result
MAX_FILES = 16  # of one result
MAX_DEPTH = 16  # of lists and dicts in a result
MAX_MESSAGE = 2000  # characters of what an app says went wrong

_FILES = frozenset({"Image", "Audio", "Video", "File", "Model3D"})  # components that take the path of a file


def from_space(
    space_id: str, name: str, description: str = "", api_name: str | None = None, token: str | None = None
) -> SchemaTool:
    """One endpoint of a Gradio Space as a tool. It is asked what it takes; calls wait in its queue.

    Pictures, sounds and files are given as ``AgentImage``, ``AgentAudio``, bytes, an image of Pillow or an http
    address, and come back as ``AgentImage``, ``AgentAudio`` or bytes. Of several outputs the first is the result, as
    in smolagents: the others are mostly such as a seed.

    Args:
        space_id: "owner/space", or an app's http address.
        name: what the code calls.
        description: what it does.
        api_name: the endpoint, such as "/predict"; None for the first.
        token: for private Spaces. The Space's code can read it. None sends none, not even one that is stored.

    Raises:
        ConfigError: gradio_client is missing.
        ToolError: it has no such endpoint, or takes what cannot be described.
        ToolUnavailable: it cannot be reached or does not run.
    """
    client = _client(space_id, token)
    endpoint, described = _endpoint(_told_by(client, space_id), space_id, api_name)
    parameters = [_Parameter.of(place, one, client.src) for place, one in enumerate(_dicts(described, "parameters"))]
    space = _Space(client, endpoint, parameters, f"the Space {one_line(space_id, 100)}")
    outputs = [str(one.get("component")) for one in _dicts(described, "returns")]
    return SchemaTool(
        name,
        description,
        _schema(parameters),
        space.call,
        origin=space.name,
        output_type={"Image": "image", "Audio": "audio", "Textbox": "string"}.get(outputs[0] if outputs else "", "any"),
    )


def _client(space_id: str, token: str | None) -> Any:
    try:
        from gradio_client import Client  # type: ignore[import-untyped]
    except ImportError:
        raise missing_extra("from_space", "gradio_client", "gradio") from None
    settings = {"timeout": HTTP_TIMEOUT}
    try:
        # False: None would send the token that is stored on this machine, to whoever owns the app.
        client = Client(
            space_id,
            token=token or False,
            verbose=False,
            httpx_kwargs=settings,
            download_files=False,
            analytics_enabled=False,
        )
    except Exception as error:  # whatever kind it raises, it is about reaching the app
        raise ToolUnavailable(f"the Space {one_line(space_id, 100)} cannot be used: {_told(error)}") from error
    if _origin(client.src_prefixed) != _origin(client.src):
        raise ToolUnavailable(f"the Space {one_line(space_id, 100)} sends its callers elsewhere, to another address")
    return client


def _told_by(client: Any, space_id: str) -> Any:
    """What the app says of its endpoints."""
    try:
        return client.view_api(print_info=False, return_format="dict")
    except Exception as error:  # it takes for granted what the app says
        raise ToolUnavailable(f"the Space {one_line(space_id, 100)} cannot be used: {_told(error)}") from error


def _endpoint(told: Any, space_id: str, api_name: str | None) -> tuple[str, Mapping[str, Any]]:
    endpoints = told.get("named_endpoints") if isinstance(told, Mapping) else None
    if not endpoints or not isinstance(endpoints, Mapping):
        raise ToolError(f"the Space {space_id} has no named endpoint")
    chosen = str(next(iter(endpoints))) if api_name is None else f"/{api_name.removeprefix('/')}"
    if chosen not in endpoints:
        there = ", ".join(one_line(str(name), 40) for name in list(endpoints)[:20])
        raise ToolError(f"the Space {space_id} has no endpoint {chosen!r}; it has {there}")
    if not isinstance(endpoints[chosen], Mapping):
        raise ToolError(f"the Space {space_id} says of its endpoint {one_line(chosen, 40)} nothing that can be read")
    return chosen, endpoints[chosen]


def _dicts(described: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    found = described.get(key) or []
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, Mapping) for one in found):
        raise ToolError(f"the Space describes the {key} of its endpoint in no form that can be read")
    return found


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One input of an endpoint."""

    name: str
    schema: Mapping[str, Any]
    is_file: bool
    needed: bool
    default: Any

    @classmethod
    def of(cls, place: int, said: Mapping[str, Any], source: str) -> _Parameter:
        component = str(said.get("component", ""))
        kind = said.get("python_type")
        words = [said.get("label") or "", (kind.get("description") or "") if isinstance(kind, Mapping) else ""]
        is_file = component in _FILES
        schema: Any = said.get("type")
        schema = dict(schema) if isinstance(schema, Mapping) and not is_file else {}
        if is_file:
            words.append(f"({component.lower()}: an AgentImage, AgentAudio, bytes or an http address)")
        text = ". ".join(str(word) for word in words if word)
        default = said.get("parameter_default")
        safe, default = _safe_default(default, source)
        has_default = bool(said.get("parameter_has_default")) and safe
        if has_default and default is None:
            schema = {"anyOf": [schema, {"type": "null"}]} if schema else {}
        name = str(said.get("parameter_name") or f"argument_{place}")
        return cls(name, {**schema, "description": text}, is_file, not has_default, default)


def _safe_default(default: Any, source: str) -> tuple[bool, Any]:
    """A default that names a file is kept as an address of the app's own; any other path is none of ours to send."""
    if not _has_file(default):
        return True, default
    url = default.get("url") if isinstance(default, Mapping) else None
    if isinstance(url, str) and _origin(url) == _origin(source):
        return True, _by_address(url)
    return False, None


def _has_file(value: Any, depth: int = 0) -> bool:
    """Whether gradio_client would find the path of a file in it. What is too deep to look at counts as one."""
    if depth > MAX_DEPTH:
        return True
    if isinstance(value, Mapping):
        return ("path" in value and "meta" in value) or any(_has_file(part, depth + 1) for part in value.values())
    return isinstance(value, (list, tuple)) and any(_has_file(part, depth + 1) for part in value)


def _by_address(url: str) -> dict[str, Any]:
    return {"path": url, "url": url, "orig_name": "file", "meta": {"_type": "gradio.FileData"}}


def _schema(parameters: Sequence[_Parameter]) -> dict[str, Any]:
    """Defaults are left to the call: the model is told of plain ones, and a file's is no value for it."""
    properties = {one.name: {**one.schema, "default": one.default} for one in parameters}
    return {
        "type": "object",
        "properties": properties,
        "required": [one.name for one in parameters if one.needed],
    }


@dataclass(frozen=True, slots=True)
class _Space:
    """An endpoint that can be called."""

    client: Any
    endpoint: str
    parameters: Sequence[_Parameter]
    name: str

    def call(self, arguments: Mapping[str, Any]) -> Any:
        """Blocks until it has answered.

        Raises:
            RuntimeError: the app raised an error.
            ToolUnavailable: it cannot be reached.
            TimeoutError: it did not answer in time.
        """
        with ExitStack() as files:
            folder = Path(files.enter_context(tempfile.TemporaryDirectory(prefix="cellblock-space-")))
            sent = [self._sent(one, arguments, folder) for one in self.parameters]
            result = self._answer(sent)
        single = result[0] if isinstance(result, tuple) and result else result
        return _Received(self.client, self.name).value(single)

    def _answer(self, sent: Sequence[Any]) -> Any:
        from gradio_client.exceptions import AppError  # type: ignore[import-untyped]

        try:
            job = self.client.submit(*sent, api_name=self.endpoint)
        except Exception as error:
            raise ToolUnavailable(f"{self.name} cannot be called: {_told(error)}") from error
        try:
            return job.result(timeout=CALL_TIMEOUT)
        except (TimeoutError, concurrent.futures.TimeoutError):
            job.cancel()
            raise TimeoutError(f"{self.name} did not answer within {CALL_TIMEOUT:g} s") from None
        except AppError as error:
            raise RuntimeError(f"{self.name} failed: {_told(error)}") from None
        except Exception as error:
            raise ToolUnavailable(f"{self.name} did not answer: {_told(error)}") from error

    def _sent(self, parameter: _Parameter, arguments: Mapping[str, Any], folder: Path) -> Any:
        """Every argument is given, also those left out: gradio_client would take the app's own defaults for them."""
        if parameter.name not in arguments:
            return parameter.default
        value = arguments[parameter.name]
        if parameter.is_file and value is not None:
            return _file(parameter.name, value, folder)
        value = as_json(value, parameter.name)
        if _has_file(value):
            raise TypeError(f"{parameter.name}: a dict with 'path' and 'meta' names a file of the host; none is sent")
        return value


def _file(name: str, value: Any, folder: Path) -> Any:
    """What gradio_client is given for a file: one that is written for it, or an address that the app fetches itself."""
    if isinstance(value, str):
        if not value.startswith(("http://", "https://")):
            raise TypeError(
                f"{name}: give an image, sound or bytes, or an http address; files of the host are not read"
            )
        return _by_address(value)
    if not isinstance(value, (Media, bytes)):
        try:
            value = AgentImage.of(value)
        except ConfigError as error:
            raise TypeError(f"{name}: {error}") from None
    data, mime = (value, mime_of(value)) if isinstance(value, bytes) else (value.data, value.mime)
    path = folder / f"{python_name(name)}.{mime.partition('/')[2] if mime else 'bin'}"
    path.write_bytes(data)
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}


@dataclass(slots=True)
class _Received:
    """Makes a value of a result: what it says is a file is fetched from the app; a text stays a text."""

    client: Any
    name: str
    files: int = 0

    def value(self, value: Any, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"{self.name}: its result is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, Mapping):
            if isinstance(value.get("path"), str) and ("meta" in value or "orig_name" in value):
                return self._fetched(value["path"])
            return {str(key): self.value(part, depth + 1) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(part, depth + 1) for part in value]
        return value

    def _fetched(self, path: str) -> AgentImage | AgentAudio | bytes:
        self.files += 1
        if self.files > MAX_FILES:
            raise ValueError(f"{self.name}: its result has more than {MAX_FILES} files")
        data = self._read(f"{self.client.src_prefixed}file={quote(path, safe='/')}")
        mime = mime_of(data)
        return media_of(data, mime) if mime else data

    def _read(self, url: str) -> bytes:
        """Without following redirects, which could lead anywhere, with the token."""
        data = bytearray()
        headers = {**self.client.headers, "Accept-Encoding": "identity"}
        try:
            with httpx2.stream(
                "GET", url, headers=headers, cookies=self.client.cookies, timeout=HTTP_TIMEOUT
            ) as response:
                if response.status_code != httpx2.codes.OK:
                    raise ToolUnavailable(f"{self.name} does not give a file of its result: {response.status_code}")
                for piece in response.iter_raw():
                    data += piece
                    if len(data) > MAX_FILE:
                        raise ValueError(f"{self.name}: a file of its result has more than {MAX_FILE:,} bytes")
        except httpx2.HTTPError as error:
            raise ToolUnavailable(f"{self.name} does not give a file of its result: {_told(error)}") from None
        return bytes(data)


def _told(error: BaseException) -> str:
    return one_line(str(error) or type(error).__name__, MAX_MESSAGE)


def from_gradio(gradio_tool: Any) -> SchemaTool:
    """A tool as those of the gradio_tools package are: with ``name``, ``description`` and a ``run`` with type hints.

    Raises:
        ToolError: it lacks one of these, a hint names something that does not exist, or ``run`` takes ``*args`` or
            ``**kwargs``.
    """
    run = getattr(gradio_tool, "run", None)
    if not callable(run) or not isinstance(getattr(gradio_tool, "name", None), str):
        raise ToolError(
            f"from_gradio takes an object with name, description and run(), not {type(gradio_tool).__name__}"
        )
    signature = hinted_signature(gradio_tool.name, run)
    properties = {
        name: (type_schema(parameter.annotation) if parameter.annotation is not parameter.empty else {})
        | ({} if parameter.default is parameter.empty else {"default": parameter.default})
        for name, parameter in signature.parameters.items()
    }
    needed = [name for name, parameter in signature.parameters.items() if parameter.default is parameter.empty]
    return SchemaTool(
        gradio_tool.name,
        str(getattr(gradio_tool, "description", "")),
        {"type": "object", "properties": properties, "required": needed},
        lambda arguments: run(**arguments),
        origin=f"the Gradio tool {gradio_tool.name!r}",
    )
