"""A tool's code written out as a file, and made a tool again."""

from __future__ import annotations

import asyncio
import functools
import json as js
import math
import os
import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple

import numpy
import pytest

import orchestrator
from orchestrator import tool
from orchestrator.errors import ConfigError, ToolError
from orchestrator.tools import Tool, as_tool
from orchestrator.tools.schema_tool import SchemaTool
from orchestrator.tools.source import tool_source

GREETING = {"hello": ["hi", "hey"], "bye": None}
LOCK = threading.Lock()
NOT_A_NUMBER = math.nan
MOST = 9
HOME = os.environ.get("HOME", "")
API_KEY = "nothing-that-looks-like-one"
ENDPOINT = "https://user:word@example.org"
TWICE = 1
TWICE += 1


class Color(Enum):
    RED = "red"
    BLUE = "blue"


def shout(text: str) -> str:
    return f"{text.upper()}{MARK}"


MARK = "!"
loud = shout


@tool
def plain(text: str) -> str:
    """Gives it back.

    Args:
        text: what
    """
    return text


@orchestrator.tool(timeout=5.0, expose_errors=False)
def rich(name: str, kind: Literal["hello", "bye"] = "hello", color: Color = Color.RED) -> Any:
    """Greets.

    Args:
        name: whom
        kind: how
        color: in which color
    """
    import re

    words = GREETING[kind] or [kind]
    return js.dumps([plain(re.sub("x", "y", loud(name))), *words, color.value, math.floor(2.5)])


@dataclass(frozen=True)
class Unit:
    """What is counted in.

    Attributes:
        name: of it
    """

    name: str
    factors: list[int] = field(default_factory=list)


class Scale(NamedTuple):
    low: int
    high: int = MOST


@tool
def measured(text: str, unit: Unit) -> str:
    """Measures.

    Args:
        text: what
        unit: in what
    """
    return str(Scale(0)) if unit.name == "scale" else f"{len(text)} {unit.name}"


@tool
async def later(text: str) -> str:
    """Later.

    Args:
        text: what
    """
    await asyncio.sleep(0)
    return text


class Base(Tool):
    output_type = "string"

    def setup(self) -> None:
        self.mark = MARK


class Derived(Base):
    """Is found with what it is built on."""

    name = "derived"
    description = "Marks."
    inputs = {"text": {"type": "string", "description": "what"}}  # noqa: RUF012 - as users write it

    def __init__(self, times: int = 2) -> None:
        self.times = times

    def forward(self, text: str) -> str:
        return shout(text) * self.times + self.mark


def again(made: Tool, **kwargs: Any) -> Tool:
    return Tool.from_code(tool_source(made).code, trust_remote_code=True, **kwargs)


def test_a_function_with_what_it_uses() -> None:
    source = tool_source(rich)
    assert (source.entry, source.is_class, source.requirements) == ("rich", False, ("cellblock",))
    assert '__all__ = ["rich"]' in source.code  # `plain` is a tool, too
    made = Tool.from_code(source.code, trust_remote_code=True)
    assert (made.timeout, made.expose_errors) == (5.0, False)
    assert made("ax", color="blue") == rich("ax", color="blue") == '["AX!", "hi", "hey", "blue", 2]'
    assert made.to_code_prompt() == rich.to_code_prompt()


def test_a_class_with_what_it_is_built_on() -> None:
    source = tool_source(Derived(3))
    assert (source.entry, source.is_class) == ("Derived", True)
    assert again(Derived())("a") == "A!A!!"
    assert again(Derived(), times=1)("a") == "A!!"


def test_one_that_uses_a_dataclass_of_its_module() -> None:
    """The ``__repr__`` that is made for it is a function in another one, which nobody wrote."""
    assert again(measured)("abc", Unit("m")) == "3 m"
    assert again(measured)("abc", {"name": "m"}) == "3 m"
    assert "Scale(" in again(measured)("abc", {"name": "scale"})


def test_one_that_is_async() -> None:
    assert asyncio.run(again(later)("x")) == "x"


def test_a_plain_function_that_was_made_a_tool() -> None:
    def inner(count: int) -> int:
        """Counts.

        Args:
            count: how far
        """
        return count + 1

    made = again(tool(expose_errors=False)(inner))
    assert made(1) == 2
    assert not made.expose_errors
    assert again(as_tool(inner))(2) == 3


def test_a_loaded_tool_can_be_saved_again() -> None:
    once = again(Derived())
    assert again(once)("a") == "A!A!!"
    assert tool_source(once).code == tool_source(Derived()).code


def test_installed_packages_are_required() -> None:
    @tool
    def root(x: float) -> float:
        """Root.

        Args:
            x: of it
        """
        import yaml  # noqa: F401

        return float(np.sqrt(x))  # noqa: F821 - see below

    globals()["np"] = numpy
    try:
        source = tool_source(root)
    finally:
        del globals()["np"]
    assert [name.lower() for name in source.requirements] == ["pyyaml", "cellblock", "numpy"]
    assert "import numpy as np" in source.code
    assert Tool.from_code(source.code, trust_remote_code=True)(4.0) == 2.0


def refused(made: Tool, why: str) -> None:
    with pytest.raises(ToolError, match=why) as caught:
        tool_source(made)
    assert f"tool {made.name} cannot be saved: " in str(caught.value)


DOC = "Does.\n\nArgs:\n    x: it\n"


def documented(function: Any) -> Any:
    function.__doc__ = DOC
    return function


def test_what_may_be_a_secret_is_not_written_down() -> None:
    def home(x: int) -> str:
        return HOME

    def key(x: int) -> str:
        return API_KEY

    def url(x: int) -> str:
        return ENDPOINT

    def twice(x: int) -> int:
        return TWICE

    refused(as_tool(documented(home)), "the value of 'HOME' is made when its module runs")
    refused(as_tool(documented(twice)), "the value of 'TWICE' is made when its module runs")
    refused(as_tool(documented(key)), "'API_KEY' looks like a credential")
    refused(as_tool(documented(url)), "'ENDPOINT' looks like a credential")


def test_what_cannot_be_written_down_is_refused_with_the_reason() -> None:
    outside = object()

    def closes(x: int) -> str:
        return repr(outside)

    def locks(x: int) -> int:
        with LOCK:
            return x

    def nan(x: int) -> float:
        return NOT_A_NUMBER

    @functools.lru_cache
    def cached(x: int) -> int:
        return x

    class Object:
        def method(self, x: int) -> int:
            """Does.

            Args:
                x: it
            """
            return x

    refused(as_tool(documented(closes)), "'outside' of the function around it")
    refused(as_tool(documented(locks)), "'LOCK' of its module, a lock")
    refused(as_tool(documented(nan)), "'NOT_A_NUMBER'")
    refused(as_tool(documented(cached.__wrapped__)), r"other decorators than @tool")
    refused(as_tool(Object().method), "method of an object")
    namespace: dict[str, Any] = {}
    exec(f"def nowhere(x: int) -> int:\n    '''{DOC}'''\n    return x", namespace)
    refused(as_tool(namespace["nowhere"]), "source of nowhere is not to be found")


def test_a_class_that_needs_arguments_is_refused() -> None:
    class Needy(Derived):
        def __init__(self, key: str) -> None:
            self.key = key

    refused(Needy("k"), "needs the argument 'key' to be made")


def test_tools_of_elsewhere_are_refused() -> None:
    refused(
        SchemaTool("far", "d", {}, lambda given: None, origin="the MCP server 'x'"), "it is from the MCP server 'x'"
    )


def test_a_module_of_ones_own_is_refused() -> None:
    from tests.unit import trees

    def uses(x: int) -> Any:
        return thing  # noqa: F821 - see below

    uses.__globals__["thing"] = trees
    try:
        refused(as_tool(documented(uses)), "module 'tests', which is not of an installed package")
    finally:
        del uses.__globals__["thing"]


GOOD = f'''
from smolagents import tool

@tool
def good(x: int) -> int:
    """{DOC}"""
    return x + 1
'''


def test_code_is_not_run_without_trust(tmp_path: Any) -> None:
    touched = tmp_path / "touched"
    for trust in (False, None, "yes", 1):
        with pytest.raises(ConfigError, match=r"runs its code on the host.*trust_remote_code=True"):
            Tool.from_code(f"open({str(touched)!r}, 'w')", trust_remote_code=trust)  # type: ignore[arg-type]
    assert not touched.exists()


def test_code_written_for_smolagents() -> None:
    made = Tool.from_code(GOOD, trust_remote_code=True)
    assert isinstance(made, Tool)
    assert made(1) == 2


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "it has none"),
        ("def f(:", "is no Python"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("from smolagents import CodeAgent", "imports CodeAgent from smolagents"),
        (GOOD + GOOD.replace("good", "better"), "it has better, good"),
        ("from orchestrator import Tool\nclass T(Tool): pass", "set 'name'"),
        ("#" * (2 << 20), "at most"),
    ],
)
def test_code_that_is_no_tool(code: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        Tool.from_code(code, trust_remote_code=True)


def test_arguments_are_for_classes() -> None:
    with pytest.raises(ToolError, match="takes no times to be made"):
        Tool.from_code(GOOD, trust_remote_code=True, times=3)
