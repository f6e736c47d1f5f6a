"""Arguments that are more than plain values: dataclasses, TypedDicts, enums inside, sets, pictures, choices."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Required, TypedDict

import pytest
from PIL import Image as PIL_Image

from orchestrator.errors import ToolError
from orchestrator.media import AgentAudio, AgentImage
from orchestrator.tools import Tool, tool
from orchestrator.tools.conversion import MAX_UNSEEDED, _changes, _schemas
from orchestrator.tools.schema import type_schema

Picture = PIL_Image.Image


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Place:
    """Where.

    Attributes:
        city: the city's name
        floor: counted from 0
    """

    city: str
    floor: int = 0


@dataclass
class Person:
    name: str
    home: Place
    likes: list[Colour] = field(default_factory=list)
    work: Place | None = None
    count: ClassVar[int] = 0
    key: int = field(default=7, init=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise TypeError("nobody is called nothing")


class Options(TypedDict, total=False):
    size: Required[int]
    colour: Colour


class Late(TypedDict):
    a: int
    b: NotRequired[str]


@dataclass
class Tree:
    children: list[Tree]


@dataclass
class Unreadable:
    part: Missing  # type: ignore[name-defined] # noqa: F821


@tool
def greet(person: Person, others: list[Person] | None = None) -> str:
    """Greets.

    Args:
        person: whom
        others: and whom else
    """
    return f"{person!r} {others!r}"


PLACE = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "the city's name"},
        "floor": {"type": "integer", "description": "counted from 0"},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def test_a_dataclass_is_an_object_of_its_fields() -> None:
    assert type_schema(Place) == PLACE
    assert greet.inputs["person"] == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "home": PLACE,
            "likes": {"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}},
            "work": PLACE | {"nullable": True},
        },
        "required": ["name", "home"],
        "additionalProperties": False,
        "description": "whom",
    }


def test_a_typed_dict_is_one_too_and_knows_what_may_be_left_out() -> None:
    assert type_schema(Options)["required"] == ["size"]
    assert type_schema(Late)["required"] == ["a"]
    assert type_schema(Late)["properties"] == {"a": {"type": "integer"}, "b": {"type": "string"}}


@pytest.mark.parametrize(
    ("hint", "message"), [(Tree, "Tree holds itself"), (Unreadable, "hints of Unreadable cannot be read: NameError")]
)
def test_a_record_that_no_schema_can_describe_is_refused(hint: Any, message: str) -> None:
    def take(part: Any) -> None:
        """Takes.

        Args:
            part: it
        """

    take.__annotations__["part"] = hint
    with pytest.raises(ToolError, match=f"tool take: argument 'part': .*{message}"):
        tool(take)


def test_the_dict_arrives_as_an_instance() -> None:
    home = {"city": "Oslo"}
    expected = Person("Ann", Place("Oslo"), [Colour.RED], Place("Rome", 2))
    given = {"name": "Ann", "home": home, "likes": ["red"], "work": {"city": "Rome", "floor": 2}}
    assert greet(given) == f"{expected!r} None"
    assert greet(given, [given]) == f"{expected!r} {[expected]!r}"
    assert greet(expected, [expected]) == f"{expected!r} {[expected]!r}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("Ann", r"'person' must be object, not str 'Ann'"),
        ({"name": "Ann"}, r"'person' lacks 'home'"),
        ({"name": "Ann", "home": {"city": 1}}, r"'person' at \['home'\] at \['city'\] must be string, not int 1"),
        ({"name": "Ann", "home": {"city": "x"}, "key": 1}, r"'person' has str 'key', which is none of \['home', 'li"),
        ({"name": "Ann", "home": {"city": "x"}, "likes": ["green"]}, r"at \['likes'\] at \[0\] must be one of"),
        ({"name": "Ann", "home": {"city": "x"}, 3: 1}, r"has int 3, which is none"),
        (Person("Ann", Place(5)), r"at \['home'\] at \['city'\] must be string"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_such_record_is_refused(given: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        greet(given)


def test_a_record_that_refuses_its_fields_is_the_tools_error_not_the_callers() -> None:
    with pytest.raises(ValueError, match="'person' is no Person: nobody is called nothing"):
        greet({"name": "", "home": {"city": "x"}})


def test_the_model_is_shown_what_to_pass_not_the_hosts_classes() -> None:
    place = "(keys: city: str - the city's name, floor: int, may be left out - counted from 0)"
    likes = "likes: list[Literal['red', 'blue']], may be left out"
    person = f"(keys: name: str, home: dict {place}, {likes}, work: dict | None, may be left out {place})"
    assert greet.to_code_prompt().splitlines() == [
        "def greet(person: dict, others: list[dict] | None = None) -> str:",
        '    """Greets.',
        "",
        "    Args:",
        f"        person: whom {person}",
        f"        others: and whom else {person}",
        '    """',
    ]


def received(hint: Any, value: Any) -> Any:
    """What a tool with an argument of that hint gets for the value."""

    def take(it: Any) -> Any:
        """Takes.

        Args:
            it: the thing
        """
        return it

    take.__annotations__["it"] = hint
    return tool(take)(value)


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (set[str], ["a", "b", "a"], {"a", "b"}),
        (set, [1, 2], {1, 2}),
        (frozenset[int], {1}, frozenset({1})),
        (set[Colour], {"red"}, {Colour.RED}),
        (tuple[int, Colour], [1, "red"], (1, Colour.RED)),
        (tuple[Colour, ...], ["red", "blue"], (Colour.RED, Colour.BLUE)),
        (list[Colour], ("red",), [Colour.RED]),
        (list[Colour], [Colour.RED], [Colour.RED]),
        (tuple, [1], (1,)),
        (list, (1,), [1]),
        (Sequence[int], (1,), (1,)),
        (dict[str, Colour], {"a": "red"}, {"a": Colour.RED}),
        (Mapping[str, Place], {"a": {"city": "x"}}, {"a": Place("x")}),
        (Annotated[Place, "x"], {"city": "x"}, Place("x")),
        (Place | Colour, "red", Colour.RED),
        (Literal[Colour.RED, "blue"], "red", Colour.RED),
        (Literal[Colour.RED, "blue"], "blue", "blue"),
        (Literal[Colour.RED, 1], Colour.RED, Colour.RED),
        (list[Literal[Colour.RED] | int], ["red", 1], [Colour.RED, 1]),
        (Place | list[Place], [{"city": "x"}], [Place("x")]),
        (Place | None, None, None),
        (Options, {"size": 1, "colour": "blue"}, {"size": 1, "colour": Colour.BLUE}),
        (float, 1, 1),
        (float | None, 1, 1),
        (Any, {"a": (1, {2})}, {"a": (1, {2})}),
    ],
)
def test_a_value_arrives_as_its_hint_says(hint: Any, value: Any, expected: Any) -> None:
    got = received(hint, value)
    assert got == expected
    assert type(got) is type(expected)


def test_members_in_a_literal_are_told_by_their_values() -> None:
    @tool
    def paint(colour: Literal[Colour.RED, "green"] = Colour.RED, more: list[Literal[Colour.BLUE]] | None = None) -> str:
        """Paints.

        Args:
            colour: in which
            more: and in which
        """
        return repr(colour)

    assert paint() == paint("red") == paint(Colour.RED) == repr(Colour.RED)
    assert paint.parameters["properties"]["colour"] == {
        "type": "string",
        "enum": ["red", "green"],
        "description": "in which",
        "default": "red",
    }
    shown = paint.to_code_prompt().splitlines()[0]
    assert shown == (
        "def paint(colour: Literal['red', 'green'] = 'red', more: list[Literal['blue']] | None = None) -> str:"
    )
    with pytest.raises(TypeError, match=r"must be one of \['red', 'green'\], not str 'blue'"):
        paint("blue")


def test_what_fits_is_handed_on_and_not_copied() -> None:
    numbers = list(range(10))
    assert received(list[int], numbers) is numbers
    many = set(range(MAX_UNSEEDED + 1))
    assert received(set[int], many) is many
    people = [Place("x")]
    assert received(list[Place], people) is people
    counts = {"a": 1}
    assert received(dict[str, int | None], counts) is counts


@pytest.mark.parametrize("hint", [int, int | str, str | None, Annotated[int | None, "n"], Literal["a", 1], Any, None])
def test_elements_that_never_change_are_not_gone_through(hint: Any) -> None:
    """A list of 200,000 of them takes no time to convert; each by itself would take a second in all."""
    assert not _changes(hint)


@pytest.mark.parametrize(
    "hint", [Colour | None, Annotated[Place, "p"], int | list[Colour], Picture, set[int], Literal[Colour.RED]]
)
def test_and_those_that_may_change_are(hint: Any) -> None:
    assert _changes(hint)


def test_the_schemas_of_a_union_are_made_once_for_all_elements() -> None:
    assert _schemas((Colour, Place)) is _schemas((Colour, Place))
    without_hash = Annotated[int, []]
    assert _schemas((without_hash, Place)) == [type_schema(int), type_schema(Place)]


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (set[int], [*range(MAX_UNSEEDED + 1)], "a set of more than 1,000 elements that are no text"),
        (set, [[1]], "cannot be a set: unhashable"),
        (set[int], ["a"], r"at \[0\] must be integer"),
        (list[int], {1}, "must be array"),
        (AgentImage, b"\x89PNG\r\n\x1a\n", "must be image"),
        (AgentAudio, "tune.mp3", "must be audio"),
        (Picture, "cat.png", "must be image"),
    ],
)
def test_what_does_not_fit_is_refused(hint: Any, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        received(hint, value)


def picture() -> Any:
    return PIL_Image.new("RGB", (3, 2), "red")


def test_a_picture_arrives_as_the_tool_wants_it() -> None:
    image = AgentImage.of(picture())
    assert type_schema(Picture) == type_schema(AgentImage) == {"type": "image"}
    assert received(AgentImage, image) is image
    assert received(Picture, image).size == (3, 2)
    assert received(Picture | None, image).size == (3, 2)
    assert received(list[Picture], [image])[0].size == (3, 2)
    own = picture()
    assert received(Picture, own) is own
    with pytest.raises(TypeError, match=r"must be image \(an AgentImage, or an image of Pillow\), not str 'cat.png'"):
        received(AgentImage, "cat.png")


def test_a_picture_that_cannot_be_decoded_is_the_callers_error() -> None:
    broken = AgentImage(b"\x89PNG\r\n\x1a\nnothing", "image/png")
    with pytest.raises(TypeError, match=r"take\(\): argument 'it': the picture cannot be decoded"):
        received(Picture, broken)


def test_sound_arrives_as_it_is() -> None:
    sound = AgentAudio(b"RIFF\0\0\0\0WAVE", "audio/wav")
    assert received(AgentAudio, sound) is sound
    with pytest.raises(TypeError, match=r"must be audio \(an AgentAudio\), not bytes"):
        received(AgentAudio, sound.data)
    assert type_schema(AgentAudio) == {"type": "audio"}


def test_an_async_tool_decodes_apart_from_the_event_loop() -> None:
    threads: list[int] = []

    class Spy(AgentImage):
        def to_pil(self) -> Any:
            threads.append(threading.get_ident())
            return super().to_pil()

    @tool
    async def width(image: Picture) -> int:
        """Width.

        Args:
            image: which
        """
        return image.width  # type: ignore[no-any-return]

    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    assert asyncio.run(width(Spy(buffer.getvalue(), "image/png"))) == 3
    assert threads != [threading.get_ident()]


def test_a_subclass_without_hints_gets_media_as_they_are() -> None:
    class Look(Tool):
        name = "look"
        description = "Looks."
        inputs: ClassVar = {"image": {"type": "image", "description": "which"}}
        output_type = "string"

        def forward(self, image):  # type: ignore[no-untyped-def]
            return type(image).__name__

    assert Look()(AgentImage.of(picture())) == "AgentImage"
    assert Look().to_code_prompt().startswith("def look(image: Image) -> str:")


def test_choices_at_the_end_of_a_description() -> None:
    @tool
    def pick(unit: str, size: float = 1.5, days: int | None = None) -> str:
        """Picks.

        Args:
            unit: the unit (choices: ["m",
                "ft"])
            size: which (choices: [1.5, 2]).
            days: how many (choices: [1, 7])
        """
        return f"{unit} {size} {days}"

    assert pick.inputs == {
        "unit": {"type": "string", "enum": ["m", "ft"], "description": "the unit"},
        "size": {"type": "number", "enum": [1.5, 2], "description": "which"},
        "days": {"type": "integer", "enum": [1, 7], "description": "how many", "nullable": True},
    }
    assert pick("m", 2, None) == "m 2 None"
    with pytest.raises(TypeError, match="'unit' must be one of"):
        pick("km")
    with pytest.raises(TypeError, match="'days' must be one of"):
        pick("m", days=2)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("(choices: a, b)", "write its choices as a list in JSON"),
        ("(choices: [])", "write its choices as a list in JSON"),
        ('(choices: {"a": 1})', "write its choices as a list in JSON"),
        ("(choices: [[1]])", "write its choices as a list in JSON"),
        ("(choices: [1, 2])", "are not of the type that its hint says"),
    ],
)
def test_choices_that_are_none_are_refused(written: str, message: str) -> None:
    def pick(unit: str) -> None: ...

    pick.__doc__ = f"Picks.\n\nArgs:\n    unit: which {written}"
    with pytest.raises(ToolError, match=f"tool pick: argument 'unit': .*{message}"):
        tool(pick)
