"""The files of an agent's folder, written, and read from whoever made them: bounded, and never through a link."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml

from orchestrator.agents.sharing.layout import AGENT, PROMPTS, member_path, tool_path
from orchestrator.agents.sharing.saved import MAX_AGENTS, MAX_DEPTH, MAX_MEMBERS, MAX_TOOLS
from orchestrator.agents.sharing.schema import is_name, shown
from orchestrator.errors import AgentError
from orchestrator.sanitise import one_line
from orchestrator.tools.loading import MAX_CODE

MAX_JSON = 8 << 20  # bytes of one agent.json: instructions of a whole prompt are in it
MAX_PROMPTS = 1 << 20  # bytes of prompts.yaml: PyYAML takes up to ten seconds for that many
MAX_TOTAL = 64 << 20  # bytes of all files together
_MAX_SHOWN = 300  # characters of a parser's complaint


def encoded(files: Mapping[str, str]) -> dict[str, bytes]:
    """The files as they are stored.

    Raises:
        AgentError: a text has halves of characters in it, which no file can hold.
    """
    try:
        return {path: text.encode("utf-8") for path, text in files.items()}
    except UnicodeEncodeError as error:
        raise AgentError(f"a text of the agent cannot be written down: {error.reason}") from None


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes them, into folders that are made where they are missing."""
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def read_folder(folder: Path) -> dict[str, Any]:
    """What is in the agent.json, with the files that belong to it in their places. Nothing of it is checked further.

    Raises:
        AgentError: a file is missing, a link, too large, or not of its form.
    """
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise AgentError(f"there is no folder {folder}: {error}") from None
    try:
        return _Reader(root).agent("", 1)
    finally:
        os.close(root)


class _Reader:
    """Reads below ``root``, and counts."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._room = MAX_TOTAL
        self._agents = 0

    def agent(self, place: str, depth: int) -> dict[str, Any]:
        self._agents += 1
        if depth > MAX_DEPTH or self._agents > MAX_AGENTS:
            raise AgentError(f"a team may have {MAX_AGENTS} agents, and {MAX_DEPTH} levels")
        text = self._read(f"{place}{AGENT}", MAX_JSON)
        if text is None:
            raise AgentError(f"there is no {place}{AGENT}")
        data = parsed_json(text, f"{place}{AGENT}")
        prompts = self._read(f"{place}{PROMPTS}", MAX_PROMPTS)
        if prompts is not None:
            data["prompt_templates"] = parsed_yaml(prompts, f"{place}{PROMPTS}")
        tools, members = data.get("tools", []), data.get("managed_agents", [])
        if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
            raise AgentError(f"{place}{AGENT}: tools must be a list, of at most {MAX_TOOLS}")
        if not isinstance(members, list | dict) or len(members) > MAX_MEMBERS:
            raise AgentError(f"{place}{AGENT}: managed_agents must be a list, of at most {MAX_MEMBERS}")
        data["tools"] = [self._tool(tool, place) for tool in tools]
        data["managed_agents"] = [self._member(name, place, depth) for name in members]
        return data

    def _tool(self, tool: Any, place: str) -> Any:
        """With its code in the place of the file's name. smolagents writes its name alone."""
        if isinstance(tool, str):
            name = _checked(tool, f"{place}{AGENT}: tools")
            return {"name": name, "code": self._code(name, place)}
        if not isinstance(tool, dict) or "code" not in tool:
            return tool
        name = _checked(tool.get("name"), f"{place}{AGENT}: tools")
        if tool["code"] != tool_path(name):
            raise AgentError(f"{place}{AGENT}: the code of {name} can be in {tool_path(name)}, and nowhere else")
        return {**tool, "code": self._code(name, place)}

    def _code(self, name: str, place: str) -> str:
        code = self._read(f"{place}{tool_path(name)}", MAX_CODE)
        if code is None:
            raise AgentError(f"there is no {place}{tool_path(name)}")
        return code

    def _member(self, name: Any, place: str, depth: int) -> dict[str, Any]:
        name = _checked(name, f"{place}{AGENT}: managed_agents")
        member = self.agent(f"{place}{member_path(name)}", depth + 1)
        if member.get("name") != name:
            raise AgentError(f"{place}{member_path(name)}{AGENT}: the agent calls itself {shown(member.get('name'))}")
        return member

    def _read(self, path: str, limit: int) -> str | None:
        """Its text; None if it is not there. Each part of ``path`` is a constant or a checked name."""
        try:
            with self._opened(path) as file:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise AgentError(f"{path} is no file")
                with os.fdopen(os.dup(file), "rb") as reader:
                    data = reader.read(min(limit, self._room) + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            _refuse(path, error)
        if len(data) > limit:
            raise AgentError(f"{path} has more than {limit:,} bytes")
        self._room -= len(data)
        if self._room < 0:
            raise AgentError(f"the agent's files have more than {MAX_TOTAL:,} bytes")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise AgentError(f"{path} is no text in UTF-8") from None

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        """Part by part, so that none of them is a link; without waiting for what is no file."""
        *folders, name = path.split("/")
        held = [self._root]
        try:
            for folder in folders:
                held.append(os.open(folder, _FOLDER, dir_fd=held[-1]))
            held.append(os.open(name, _FILE, dir_fd=held[-1]))
            yield held[-1]
        finally:
            for descriptor in held[1:]:
                os.close(descriptor)


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _refuse(path: str, error: OSError) -> NoReturn:
    raise AgentError(f"{path} cannot be read (links are not followed): {error.strerror}") from None


def _checked(name: Any, place: str) -> str:
    if not is_name(name):
        raise AgentError(f"{place}: {shown(name)} is no name")
    return str(name)


def parsed_json(text: str, place: str) -> dict[str, Any]:
    """The object that is the text.

    Raises:
        AgentError: it is none, or says something twice.
    """
    try:
        data = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise AgentError(f"{place} is no JSON: {one_line(str(error), _MAX_SHOWN)}") from None
    if not isinstance(data, dict):
        raise AgentError(f"{place} must hold an object")
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


class _Loader(yaml.BaseLoader):
    """Texts, lists and mappings alone, and without references: a small text with them is a large value.

    Prompts are texts, so nothing is guessed from how one looks. What PyYAML would guess has its price: a number to the
    base of 60 (``1:2:3``) takes it the square of its length, and that before anybody is asked for trust.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references are not read")
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) not in _TAGS:
            raise yaml.YAMLError("there can be texts, lists and mappings, and nothing of another type")
        return super().compose_node(parent, index)


_TAGS = frozenset({None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))})


def parsed_yaml(text: str, place: str) -> dict[str, Any]:
    """The mapping that is the text; what is in it is text, however it looks.

    Raises:
        AgentError: it is none.
    """
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - the base loader makes no objects
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise AgentError(f"{place} is no YAML: {one_line(str(error), _MAX_SHOWN)}") from None
    if not isinstance(data, dict):
        raise AgentError(f"{place} must hold a mapping from part to template")
    return data
