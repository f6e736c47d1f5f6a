"""``@tool`` and ``Tool``: what a definition must say, and what a call is checked for."""

from __future__ import annotations

import asyncio
import inspect
import threading
from enum import Enum
from typing import Any, ClassVar, Literal, Optional

import pytest

from orchestrator.errors import ToolError
from orchestrator.tools import FunctionTool, Tool, as_tool, tool


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@tool
def paint(thing: str, colour: Colour = Colour.RED, coats: Optional[int] = None) -> str:  # noqa: UP045 - read as written
    """Paints a thing.

    It dries by itself.

    Args:
        thing: what to paint,
            in a word
        colour (Colour): which colour: red or blue
        coats: how often

    Returns:
        What was done.

    Raises:
        ValueError: never.
    """
    return f"{thing} {colour.name} {coats}"


def test_a_function_becomes_a_tool() -> None:
    assert isinstance(paint, FunctionTool)
    assert paint.name == paint.__name__ == "paint"
    assert paint.description == "Paints a thing.\n\nIt dries by itself."
    assert paint.inputs == {
        "thing": {"type": "string", "description": "what to paint, in a word"},
        "colour": {"type": "string", "enum": ["red", "blue"], "description": "which colour: red or blue"},
        "coats": {"type": "integer", "nullable": True, "description": "how often"},
    }
    assert paint.output_type == "string"
    assert paint.expose_errors
    assert not paint.is_async
    assert list(inspect.signature(paint).parameters) == ["thing", "colour", "coats"]


def test_the_model_is_shown_a_function() -> None:
    assert paint.to_code_prompt() == (
        "def paint(thing: str, colour: Literal['red', 'blue'] = 'red', coats: Optional[int] = None) -> str:\n"
        '    """Paints a thing.\n'
        "\n"
        "    It dries by itself.\n"
        "\n"
        "    Args:\n"
        "        thing: what to paint, in a word\n"
        "        colour: which colour: red or blue\n"
        "        coats: how often\n"
        "\n"
        "    Returns:\n"
        "        What was done.\n"
        '    """'
    )


def test_a_description_cannot_end_the_docstring_it_is_shown_in() -> None:
    class Quoting(Tool):
        name = "quoting"
        description = 'Says """ and \\'
        inputs: ClassVar = {}
        output_type = "null"

        def forward(self) -> None:
            return None

    shown = Quoting().to_code_prompt()
    assert shown.count('"""') == 2
    compile(shown, "prompt", "exec")


def test_a_call_takes_members_and_their_values() -> None:
    assert paint("wall") == "wall RED None"
    assert paint("wall", "blue", coats=2) == "wall BLUE 2"
    assert paint("wall", colour=Colour.BLUE) == "wall BLUE None"


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'thing'"),
        (("a",), {"size": 1}, "unexpected keyword argument 'size'"),
        ((1,), {}, r"argument 'thing' must be string, not int 1"),
        (("a", "green"), {}, r"argument 'colour' must be one of \['red', 'blue'\], not str 'green'"),
        (("a", "red", "3"), {}, r"argument 'coats' must be integer, not str '3'"),
        (("a", "red", True), {}, r"argument 'coats' must be integer, not bool True"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        paint(*args, **kwargs)


def test_async_functions_stay_async() -> None:
    @tool(expose_errors=False)
    async def double(n: int) -> int:
        """Doubles.

        Args:
            n: a number
        """
        return 2 * n

    assert double.is_async
    assert not double.expose_errors
    assert asyncio.run(double(4)) == 8


def test_a_method_can_be_a_tool() -> None:
    class Shop:
        stock: ClassVar = {"tea": 3}

        def count(self, item: str) -> int:
            """Counts.

            Args:
                item: which
            """
            return self.stock[item]

    counter = as_tool(Shop().count)
    assert counter("tea") == 3
    assert list(counter.inputs) == ["item"]


def no_summary(a: int) -> int:
    """
    Args:
        a: x
    """
    return a


def no_hint(a) -> int:  # type: ignore[no-untyped-def]
    """Does.

    Args:
        a: x
    """
    return int(a)


def no_description(a: int, b: int) -> int:
    """Does.

    Args:
        a: x
    """
    return a + b


def no_return(a: int):  # type: ignore[no-untyped-def]
    """Does.

    Args:
        a: x
    """


def many(*rest: int) -> int:
    """Does."""
    return sum(rest)


def unknown_type(a: "Missing") -> int:  # type: ignore[name-defined] # noqa: F821, UP037
    """Does.

    Args:
        a: x
    """
    return 0


def described_twice(a: int) -> int:
    """Does.

    Args:
        a: x
        c: y
    """
    return a


def final_answer(a: int) -> int:
    """Does.

    Args:
        a: x
    """
    return a


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_summary, "add a docstring that says what it does"),
        (no_hint, "add a type hint to argument 'a'"),
        (no_description, "describe argument 'b' under 'Args:'"),
        (no_return, "add the type it returns"),
        (many, "name its arguments one by one"),
        (unknown_type, "its type hints cannot be read: NameError"),
        (described_twice, "Args describe c, which it does not take"),
        (final_answer, "the sandbox has a function of that name"),
        (lambda: 1, "add a docstring"),
        (len, "takes a function"),
    ],
)
def test_a_wrong_function_is_refused_with_what_to_fix(function: Any, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        tool(function)
    with pytest.raises(ToolError, match=message):
        as_tool(function)


class Weather(Tool):
    name = "weather"
    description = "Weather now."
    inputs: ClassVar = {
        "city": {"type": "string", "description": "the city's name"},
        "days": {"type": ["integer", "null"], "description": "how many", "nullable": True},
    }
    output_type = "string"

    def __init__(self, answer: str) -> None:  # does not call super().__init__(), as nobody does
        self.answer = answer
        self.set_up = 0

    def setup(self) -> None:
        self.set_up += 1

    def forward(self, city, days=None):  # type: ignore[no-untyped-def]
        return f"{self.answer} in {city}"


def test_a_subclass_works_as_in_smolagents() -> None:
    weather = Weather("sun")
    assert weather("Oslo") == "sun in Oslo"
    assert weather(city="Rome", days=None) == "sun in Rome"
    assert weather.set_up == 1
    assert weather.to_code_prompt().startswith("def weather(city: str, days: int | None = None) -> str:")
    with pytest.raises(TypeError, match="'city' must be string"):
        weather(3)


def test_setup_happens_once_in_many_threads() -> None:
    weather = Weather("sun")
    threads = [threading.Thread(target=weather, args=("Oslo",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert weather.set_up == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "two words"}, "must be a Python identifier"),
        ({"name": "class"}, "must be a Python identifier"),
        ({"name": "__builtins__"}, "Python's own"),
        ({"name": None}, "set 'name' to a text"),
        ({"description": " "}, "set 'description' to a text"),
        ({"output_type": "text"}, "output_type 'text' is none of"),
        ({"inputs": ["city"]}, "set 'inputs' to a dict"),
        ({"inputs": {"city": "string"}}, r"inputs\['city'\] must be a dict with 'type' and 'description'"),
        ({"inputs": {"city": {"type": "str", "description": ""}}}, r"inputs\['city'\]: type 'str' is none of"),
        ({"inputs": {"place": {"type": "string", "description": ""}}}, r"names \['place'\] and forward\(\) takes"),
    ],
)
def test_a_wrong_subclass_is_refused_with_what_to_fix(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        type("Changed", (Weather,), changes)("sun")


def test_defaults_need_no_check_and_containers_are_checked_inside() -> None:
    @tool
    def add(numbers: list[float], pair: tuple[int, str] = (1, "a"), by: dict[str, int] | None = None) -> float:
        """Adds.

        Args:
            numbers: which
            pair: a pair
            by: a table
        """
        return sum(numbers)

    assert add([1, 2.5]) == 3.5
    for wrong, message in [
        (([1, "2"],), r"'numbers' at \[1\] must be number"),
        (([1], (1,)), r"'pair' must have 2 elements, not 1"),
        (([1], (1, 2)), r"'pair' at \[1\] must be string"),
        (([1], (1, "a"), {"x": "y"}), r"'by' at \['x'\] must be integer"),
    ]:
        with pytest.raises(TypeError, match=message):
            add(*wrong)


def test_literal_choices_are_checked() -> None:
    @tool
    def pick(mode: Literal["fast", 2]) -> None:
        """Picks.

        Args:
            mode: which
        """

    assert pick("fast") is None
    assert pick(2) is None
    with pytest.raises(TypeError, match="must be one of"):
        pick(2.0)
