"""What of a tool was changed after it was made: saved if an argument tells it, refused if nothing does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator import AgentError, CodeAgent, Tool, ToolError, WebSearchTool
from orchestrator.made_with import made_with
from tests.unit import sharing_parts as parts


class Reader(Tool):
    """With settings, a derived one, state, and what ``setup`` makes."""

    name, description, output_type = "reader", "Reads.", "string"
    inputs = {"text": {"type": "string", "description": "what"}}  # noqa: RUF012
    endpoint = "here"

    def __init__(self, limit: int = 5, words: Sequence[str] = (), mode: str = "a", source: Any = "file") -> None:
        self.limit = limit
        self.words = list(words)
        self.mode = mode.upper()
        self.source = source
        self.calls = 0

    @property
    def most(self) -> int:
        raise RuntimeError("is not asked")

    def setup(self) -> None:
        self.source = open

    def forward(self, text: str) -> str:
        self.calls += 1
        return text[: self.limit]

    def count(self, calls: int) -> None:
        self.calls = calls


class Settable(Tool):
    """Its setting is a property."""

    name, description, output_type = "settable", "Sets.", "string"
    inputs = {}  # noqa: RUF012

    def __init__(self, limit: int = 5) -> None:
        self._limit = limit

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit

    def forward(self) -> str:
        return str(self._limit)


def loaded(tool: Tool, tmp_path: Path) -> Any:
    CodeAgent([tool], parts.model()).save(tmp_path)
    return CodeAgent.from_folder(tmp_path, model=parts.model(), trust_remote_code=True).tools[tool.name]


def test_settings_are_saved_as_they_are_now(tmp_path: Path) -> None:
    reader = Reader(words=["x"])
    reader.limit = 2
    assert reader("abc") == "ab"
    reader.words = ["y", "z"]
    again = loaded(reader, tmp_path)
    assert (again.limit, again.words, again.source, again.calls) == (2, ["y", "z"], "file", 0)
    assert again("abc") == "ab"


def test_a_setting_changed_in_place_and_back(tmp_path: Path) -> None:
    reader = Reader(3, words=("x",))
    assert made_with(loaded(reader, tmp_path / "first")) == {"limit": 3, "words": ["x"]}
    changed = Reader(3, words=["x"])
    changed.words.append("y")
    changed.limit = 5
    assert made_with(loaded(changed, tmp_path / "second")) == {"limit": 5, "words": ["x", "y"]}


def test_a_setting_that_is_a_property(tmp_path: Path) -> None:
    settable = Settable()
    settable.limit = 8
    assert loaded(settable, tmp_path)() == "8"


def test_a_setting_of_a_tool_that_comes_along(tmp_path: Path) -> None:
    search = WebSearchTool(5)
    search.max_results = 7
    assert made_with(loaded(search, tmp_path)) == {"max_results": 7}


def test_a_setting_changed_before_setup_put_something_in_its_place(tmp_path: Path) -> None:
    reader = Reader()
    reader.source = "net"
    reader("abc")
    assert reader.source is open
    assert loaded(reader, tmp_path).source == "net"
    reader.source = "late"
    assert loaded(reader, tmp_path).source == "late"


@pytest.mark.parametrize(
    ("name", "value"), [("mode", "B"), ("endpoint", "there"), ("description", "Other."), ("forward", len)]
)
def test_what_no_argument_tells_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    reader = Reader()
    setattr(reader, name, value)
    with pytest.raises(AgentError, match=f"its {name} was changed after it was made; .* or let its __init__ take it"):
        CodeAgent([reader], parts.model()).save(tmp_path / "agent")
    with pytest.raises(ToolError, match=f"its {name} was changed after it was made"):
        reader.save(str(tmp_path / "tool"))
    assert not list(tmp_path.iterdir())


def test_a_setting_with_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    reader = Reader()
    reader.limit = object()  # type: ignore[assignment]
    with pytest.raises(AgentError, match="tool reader: limit is of the type object"):
        CodeAgent([reader], parts.model()).save(tmp_path)


def test_a_tool_by_itself_has_no_place_for_settings(tmp_path: Path) -> None:
    reader = Reader()
    reader.limit = 2
    with pytest.raises(ToolError, match="it was made with limit, or these were changed since"):
        reader.save(str(tmp_path))
    reader.limit = 5
    reader.save(str(tmp_path))


def test_a_function_has_the_settings_of_its_decorator_as_they_are_now(tmp_path: Path) -> None:
    shout = parts.tool(timeout=3.0)(parts.shout.forward)
    shout.timeout, shout.expose_errors = 7.0, False
    again = loaded(shout, tmp_path)
    assert (again.timeout, again.expose_errors, again("a")) == (7.0, False, "A!")
    shout.stops_clock = True
    with pytest.raises(AgentError, match="its stops_clock was changed"):
        CodeAgent([shout], parts.model()).to_dict()


def test_a_loaded_tool_is_saved_again_as_it_is(tmp_path: Path) -> None:
    first = loaded(Reader(4), tmp_path / "first")
    first.limit = 1
    assert loaded(first, tmp_path / "second").limit == 1
