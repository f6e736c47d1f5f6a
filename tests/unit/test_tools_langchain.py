"""Real tools of langchain-core as ours."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pydantic
import pytest
from langchain_core import tools

from orchestrator.errors import ToolError
from orchestrator.tools import Tool
from tests.unit.tool_calls import Calls, in_loop


@tools.tool
def search(query: str, count: int = 3) -> str:
    """Finds what one looks for."""
    return query * count


@tools.tool
async def later(words: list[str]) -> str:
    """Joins, later."""
    await asyncio.sleep(0)
    return " ".join(words)


class Point(pydantic.BaseModel):
    x: Annotated[int, pydantic.Field(description="how far right")]
    label: str | None = None


class Place(pydantic.BaseModel):
    point: Point
    kind: str = "pin"


def put(point: Any, kind: str = "pin") -> dict[str, Any]:
    return {"x": point.x, "label": point.label, "kind": kind}


def test_a_function_of_langchain_is_called() -> None:
    made = Tool.from_langchain(search)
    assert made.name == "search"
    assert made.description == "Finds what one looks for."
    assert made.is_async
    assert asyncio.run(made("ab")) == "ababab"
    assert asyncio.run(made(query="ab", count=1)) == "ab"


def test_one_that_is_async_is_awaited() -> None:
    assert asyncio.run(Tool.from_langchain(later)(["a", "b"])) == "a b"


def test_its_schema_is_checked_here() -> None:
    with pytest.raises(TypeError, match="'count' must be integer, not str"):
        asyncio.run(Tool.from_langchain(search)("ab", count="3"))


def test_nested_models() -> None:
    made = Tool.from_langchain(
        tools.StructuredTool.from_function(put, name="put it", description="d", args_schema=Place)
    )
    assert made.name == "put_it"
    assert made.inputs["point"]["properties"]["x"] == {"type": "integer"}
    assert made.inputs["point"]["required"] == ["x"]
    assert asyncio.run(made({"x": 3})) == {"x": 3, "label": None, "kind": "pin"}
    with pytest.raises(TypeError, match="must be integer"):
        asyncio.run(made({"x": "three"}))


def test_the_old_kind_takes_one_text() -> None:
    made = Tool.from_langchain(tools.Tool(name="shout", description="Shouts.", func=lambda text: text.upper()))
    assert made.to_code_prompt().startswith("def shout(tool_input: str)")
    assert asyncio.run(made("psst")) == "PSST"


def test_what_langchain_injects_is_not_asked_of_the_model() -> None:
    @tools.tool
    def secretly(query: str, key: Annotated[str, tools.InjectedToolArg]) -> str:
        """Looks."""
        return query + key

    assert list(Tool.from_langchain(secretly).inputs) == ["query"]


def test_a_sandbox_calls_it() -> None:
    async def case() -> Any:
        return await Calls([Tool.from_langchain(search)]).call("search", "x")

    assert in_loop(case()) == "xxx"


def test_anything_else_is_refused() -> None:
    with pytest.raises(ToolError, match="not int"):
        Tool.from_langchain(3)
