"""Final answers and results as Markdown: pictures and sound from their bytes, tables, text; hostile ones among them."""

from __future__ import annotations

import base64
import sys
from typing import Any

import pandas
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from orchestrator.media import AgentAudio, AgentImage
from orchestrator.sandbox import NDArray, Opaque, Table
from orchestrator.ui import content
from tests.unit.pictures import PNG

WAV = b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 32
PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")


def test_text_is_prose_and_an_empty_one_is_said_to_be_empty() -> None:
    assert content.value("**yes** <b>") == "**yes** &#60;b&#62;"
    assert content.value("") == "(an empty text)"


def test_a_picture_is_shown_from_its_bytes() -> None:
    data = base64.b64encode(PNG).decode()
    for given in (AgentImage.of(PNG), PNG, [PNG], (AgentImage.of(PNG),)):
        assert content.value(given) == f'<img alt="picture" src="data:image/png;base64,{data}">'


def test_sound_can_be_played() -> None:
    data = base64.b64encode(WAV).decode()
    assert content.value(AgentAudio.of(WAV)) == f'<audio controls src="data:audio/wav;base64,{data}"></audio>'


def test_an_image_of_pillow_is_a_picture() -> None:
    image = Image.new("RGB", (2, 2))
    assert content.value(image).startswith('<img alt="picture" src="data:image/png;base64,')


def test_bytes_that_are_no_picture_are_shown_as_what_they_are() -> None:
    assert content.value(b"<svg onload=x>") == "```python\nb'<svg onload=x>'\n```"


def test_pictures_are_bounded_in_size_and_number() -> None:
    large = AgentImage.of(PNG + b"\0" * content.MAX_MEDIA)
    assert "too large" in content.value(large)
    many = content.value([PNG] * (content.MAX_PARTS + 3))
    assert many.count("<img") == content.MAX_PARTS
    assert many.endswith("3 more are not shown.")
    heavy = content.value([PNG + b"\0" * (content.MAX_MEDIA - 100)] * 5)
    assert heavy.count("<img") == 2
    assert heavy.endswith("3 more are not shown.")


TABLES: list[Any] = [
    [{"a": 1, "b": "<b>"}, {"a": 2, "b": "y"}],
    [[1, "<b>"], [2, "y"]],
    ((1, "<b>"), (2, "y")),
]


@pytest.mark.parametrize("rows", TABLES)
def test_rows_are_a_table(rows: Any) -> None:
    html = PARSER.render(content.value(rows))
    assert html.count("<tr>") == 3
    assert "<td>&lt;b&gt;</td>" in html


def test_an_array_of_two_dimensions_is_a_table() -> None:
    data = b"".join(n.to_bytes(8, "little") for n in range(6))
    html = PARSER.render(content.value(NDArray("int64", (2, 3), data)))
    assert html.count("<td>") == 6
    assert "<td>5</td>" in html


def test_values_from_a_sandbox_are_shown_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    many = NDArray("int16", (1_000, 30), b"".join(n.to_bytes(2, "little") for n in range(30_000)))
    column = NDArray("int16", (1_000,), many.data[:2_000])
    for given, last in ((many, 49 * 30), (Table((("n", column),)), 49)):
        shown = content.value(given)
        assert "Not shown: 950 more rows" in shown
        assert f"<td>{last}</td>" in PARSER.render(shown)
    assert "<th>n</th>" in PARSER.render(content.value(Table((("n", NDArray("int16", (0,), b"")),))))


def test_a_frame_from_a_sandbox_is_a_table() -> None:
    numbers = NDArray("int64", (2,), b"".join(n.to_bytes(8, "little") for n in (1, 2)))
    html = PARSER.render(content.value(Table((("<b>", numbers), ("y", ["<i>", "u"])), ("day", ["Mo", "Tu"]))))
    assert "<th>day</th>\n<th>&lt;b&gt;</th>" in html
    assert "<td>Tu</td>\n<td>2</td>\n<td>u</td>" in html
    many = Table((("x", list(range(1_000))),))
    assert "Not shown: 950 more rows." in content.value(many)


def test_a_frame_is_a_table_with_its_beginning() -> None:
    shown = content.value(pandas.DataFrame({"x<": range(1_000), "y": 0.5}))
    html = PARSER.render(shown)
    assert "<th>x&lt;</th>" in html
    assert html.count("<tr>") == 51
    assert "Not shown: 950 more rows." in shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"a": "```\n<b>"}, '````json\n{\n  "a": "```\\n<b>"\n}\n````'.replace("````", "````")),
        ([], "```json\n[]\n```"),
        ([1, 2], "```json\n[\n  1,\n  2\n]\n```"),
        ({1: {2}}, "```python\n{1: {2}}\n```"),
        (4.5, "```python\n4.5\n```"),
        (None, "```python\nNone\n```"),
        (Opaque("T", "<T object>"), "```python\n<T object>\n```"),
    ],
)
def test_everything_else_is_shown_as_its_words(given: Any, shown: str) -> None:
    assert content.value(given) == shown


HUGE = 10**5000  # Python refuses to write it


@pytest.mark.parametrize(
    "given",
    [HUGE, [HUGE], {"a": HUGE}, [[HUGE, 1]], [{"a": HUGE}], [{HUGE: 1}], Table((("a", [HUGE]),), None, False)],
    ids=["alone", "list", "dict", "rows", "records", "column", "table"],  # made of the values they cannot be written
)
def test_a_number_that_cannot_be_written_is_shown_as_something(given: Any) -> None:
    assert "&#60;int&#62;" in content.value(given) or "```python\n<" in content.value(given)


def test_results_show_their_pictures_once_and_no_html() -> None:
    bundle = {"text/plain": "<Figure>", "text/html": "<script>", "image/png": PNG, "image/jpeg": b"\xff\xd8\xff"}
    shown = content.pictures(None, [bundle, {"text/html": "<b>"}, {"image/png": b"no picture"}])
    assert shown.count("<img") == 1
    assert "script" not in shown


def test_a_value_that_is_pictures_shows_them_and_not_the_same_again() -> None:
    data = base64.b64encode(PNG).decode()
    for given, times in ((AgentImage.of(PNG), 1), ([AgentImage.of(PNG)] * 2, 2), ((AgentImage.of(PNG),), 1)):
        for results in ([], [{"image/png": PNG}]):
            shown = content.pictures(given, results)
            assert (
                shown.count(f'<img alt="picture" src="data:image/png;base64,{data}">') == shown.count("<img") == times
            )
    for other in ([], [1, AgentImage.of(PNG)], {"k": PNG}, "text", Opaque("T", "x"), Table((("a", [PNG]),))):
        assert content.pictures(other, []) == ""
        assert content.pictures(other, [{"image/png": PNG}]).count("<img") == 1
