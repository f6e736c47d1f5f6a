"""Host callables as tools of a sandbox: which can be one, and what the sandbox is told of them."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from executor_api.v1 import executor_pb2 as pb

from executor_image.runner import tools as runner_tools
from orchestrator.config import Config, Limits
from orchestrator.errors import ToolError
from orchestrator.policy import ToolPolicy
from orchestrator.sandbox.grants import MAX_DOC, MAX_TOOLS, HostTool, HostTools

KIND = pb.Parameter


def add(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


async def later(a: int) -> int:
    """Adds one, later."""
    await asyncio.sleep(0)
    return a + 1


# ------------------------------------------------------------------------------------------ what the sandbox is told


def test_a_signature_is_told_as_it_is() -> None:
    def everything(a: int, /, b: "list[str]", *c: float, d: str = "x", **e: Any) -> dict[str, int]:  # noqa: UP037
        """Does it.

        All of it.
        """

    spec = HostTool.of(everything).spec()
    assert (spec.name, spec.doc, spec.awaitable) == ("everything", "Does it.\n\nAll of it.", False)
    assert [(p.name, p.kind) for p in spec.parameters] == [
        ("a", KIND.KIND_POSITIONAL_ONLY),
        ("b", KIND.KIND_POSITIONAL_OR_KEYWORD),
        ("c", KIND.KIND_VAR_POSITIONAL),
        ("d", KIND.KIND_KEYWORD_ONLY),
        ("e", KIND.KIND_VAR_KEYWORD),
    ]
    assert spec.parameters[0].annotation == "int"
    assert "dict[str, int]" in spec.returns


@pytest.mark.parametrize(
    ("default", "shown"),
    [(None, "None"), (1, "1"), ("x", "'x'"), ([1, (2,)], "[1, (2,)]"), ({"a": b"b"}, "{'a': b'b'}"), (True, "True")],
)
def test_a_plain_default_is_shown(default: object, shown: str) -> None:
    def tool(a=default): ...

    (parameter,) = HostTool.of(tool).spec().parameters
    assert (parameter.has_default, parameter.default_repr) == (True, shown)


SECRET = type("Key", (), {"__repr__": lambda self: "sk-secret"})()


@pytest.mark.parametrize(
    "default",
    [SECRET, Path("/home/somebody"), [SECRET], (1, [SECRET]), {"key": SECRET}, {Path("/home/somebody"): 1}, {SECRET}],
    ids=["object", "path", "in a list", "in a tuple", "in a dict", "as a key", "in a set"],
)
def test_a_default_that_is_no_plain_value_is_not_shown_wherever_it_is(default: object) -> None:
    def tool(a=default): ...

    (parameter,) = HostTool.of(tool).spec().parameters
    assert parameter.has_default
    assert "secret" not in parameter.default_repr
    assert "somebody" not in parameter.default_repr


def test_long_texts_are_cut() -> None:
    def tool(a="x" * 5000) -> None: ...

    tool.__doc__ = "d" * (MAX_DOC + 10)
    spec = HostTool.of(tool).spec()
    assert len(spec.doc) == MAX_DOC
    assert len(spec.parameters[0].default_repr) == 1000


def test_the_runner_shows_the_same_signature() -> None:
    def tool(a: int, b: str = "x", *, key: float = 1.5) -> bool:
        """Doc."""
        return True

    spec = HostTool.of(tool).spec()
    parameters = [
        {
            "name": p.name,
            "kind": p.kind,
            "annotation": p.annotation,
            "default": p.default_repr if p.has_default else None,
        }
        for p in spec.parameters
    ]
    told = {"name": "tool", "doc": spec.doc, "parameters": parameters, "returns": "bool", "awaitable": False}
    made = runner_tools.make_function(told, lambda: None)  # type: ignore[arg-type, return-value]
    assert (made.__name__, made.__doc__, made.__module__) == ("tool", "Doc.", "__main__")
    assert str(inspect.signature(made)).replace("'", '"') == '(a: int, b: str = "x", *, key: float = 1.5) -> bool'


class Called:
    name = "called"
    description = "Described."

    async def __call__(self, a: int) -> int:
        return a * 2


class Plain:
    name = "plain"

    def __call__(self, a: int) -> int:
        """Documented."""
        return a * 3


def test_an_async_tool_is_known_as_one() -> None:
    flagged = Plain()
    flagged.is_async = True  # type: ignore[attr-defined]
    named_partial = functools.partial(later, 1)
    named_partial.__name__ = "bound"  # type: ignore[attr-defined]
    for tool, expected in ((add, 0), (later, 1), (Called(), 1), (Plain(), 0), (flagged, 1), (named_partial, 1)):
        assert HostTool.of(tool).awaitable == bool(expected), tool
    spec = HostTool.of(Called()).spec()
    assert (spec.name, spec.doc, [p.name for p in spec.parameters]) == ("called", "Described.", ["a"])


def test_a_name_of_pythons_own_is_refused() -> None:
    def tool() -> None: ...

    tool.__name__ = "__builtins__"
    with pytest.raises(ToolError, match="two underscores"):
        HostTool.of(tool)


@pytest.mark.parametrize("name", ["", "a b", "1a", "class", "None", "a.b", "a-b", 5])
def test_a_name_that_is_no_identifier_is_refused(name: object) -> None:
    tool = Plain()
    tool.__dict__["name"] = name
    with pytest.raises(ToolError, match="cannot be the name of a tool; give it a Python identifier"):
        HostTool.of(tool)


@pytest.mark.parametrize("tool", [functools.partial(add, 1), lambda: 1], ids=["partial", "lambda"])
def test_a_callable_without_a_usable_name_is_refused(tool: Callable[..., Any]) -> None:
    with pytest.raises(ToolError, match="identifier"):
        HostTool.of(tool)


def test_a_name_longer_than_the_wire_carries_is_refused_when_it_is_granted() -> None:
    tool = Plain()
    tool.name = "ü" * 129  # 258 bytes
    with pytest.raises(ToolError, match="name"):
        HostTool.of(tool)


def test_a_name_that_python_reads_as_another_is_refused() -> None:
    """Code that calls it would look for the other."""
    tool = Plain()
    tool.name = "\ufb01nd"
    with pytest.raises(ToolError, match="is 'find' in Python; name it so"):
        HostTool.of(tool)


def test_what_is_no_tool_is_refused() -> None:
    with pytest.raises(ToolError, match="must be callable; int is not"):
        HostTool.of(5)  # type: ignore[arg-type]
    with pytest.raises(ToolError, match="tool type: its signature cannot be read"):
        HostTool.of(type)


def test_two_tools_of_one_name_and_too_many_are_refused() -> None:
    other = Plain()
    other.name = "add"
    with pytest.raises(ToolError, match="same name"):
        HostTools([add, other], Config())
    many = [Plain() for _ in range(MAX_TOOLS + 1)]
    for i, tool in enumerate(many):
        tool.name = f"tool_{i}"
    with pytest.raises(ToolError, match="257 tools; at most 256"):
        HostTools(many, Config())
    tools = HostTools(many[:-1], Config())
    assert len(tools.specs()) == len(tools.names) == MAX_TOOLS


# ------------------------------------------------------------------------------------------------------------ bounds


def test_a_tools_own_timeout_goes_before_that_of_the_sandbox() -> None:
    quick = Plain()
    quick.timeout = 0.5  # type: ignore[attr-defined]
    tools = HostTools([quick, add], Config(tool_timeout=7))
    assert (tools.timeout("plain"), tools.timeout("add")) == (0.5, 7)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "5", 86401])
def test_a_timeout_that_can_be_none_is_refused(timeout: object) -> None:
    tool = Plain()
    tool.timeout = timeout  # type: ignore[attr-defined]
    with pytest.raises(ToolError, match=r"tool plain: timeout is .*; it must be 0\.01 to 86,400 seconds"):
        HostTool.of(tool)


def test_the_policy_has_the_names_and_the_limits_of_the_settings() -> None:
    config = Config(limits=Limits(tool_calls=5, tool_bytes="1k"))
    assert HostTools([add, later], config).policy == ToolPolicy(frozenset({"add", "later"}), 5, 1024)
    assert HostTools([], Config()).policy == ToolPolicy(frozenset(), 10_000, 64 << 20)
