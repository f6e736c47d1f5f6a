"""Hostile text in the browser: what a Markdown parser makes of it is text, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from orchestrator.sanitise import sanitise
from orchestrator.ui import markup
from tests.unit.spent import BOUNDED, seconds_of

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
MARKS = [
    "<",
    ">",
    "&",
    "[",
    "]",
    "(",
    ")",
    "!",
    "`",
    "``",
    "```",
    "~~~",
    "\\",
    "*",
    "_",
    "#",
    "|",
    "-",
    ":",
    "\n",
    "\n\n",
]
MORE = [
    "    ",
    "\t",
    " ",
    "a",
    "x=1",
    "http://h/",
    "<script>",
    "</code>",
    "<b>",
    "&lt;",
    "javascript:",
    "@",
    "$$",
    "1. ",
]
hostile = st.lists(st.sampled_from([*MARKS, *MORE]), max_size=40).map("".join) | st.text(max_size=200)

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![p](http://h/p.png)",
    "[c](javascript:alert(1))",
    "<http://h/>",
    "[a]\n\n[a]: http://h/",
    "`a` <b> `c`",
    "\\`<b>`",
    "`` `<b>` ``",
    "| `a | <b>` |\n| --- | --- |\n| `x | <i>` |",
    "```\n</code></pre><script>\n````\n<b>",
    "~~~\n<b>\n```\n<i>",
    "    <b>",
    "- x\n\n      <b>",
    "<details open ontoggle=alert(1)>",
    "&#60;script&#62;",
    "`<b>\n\nx`",
]


def tokens(markdown: str) -> Iterator[Token]:
    def walk(some: Iterable[Token]) -> Iterator[Token]:
        for token in some:
            yield token
            yield from walk(token.children or ())

    return walk(PARSER.parse(markdown))


def check_inert(markdown: str) -> None:
    for token in tokens(markdown):
        assert token.type not in ("link_open", "image", "html_block", "code_inline")
        if token.type == "html_inline":
            assert token.content in ("<code>", "</code>")


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("shown", [markup.prose, markup.plain, lambda text: markup.title(text, 100)])
def test_attacks_are_text(attack: str, shown: object) -> None:
    assert callable(shown)
    check_inert(shown(attack))


@given(hostile)
def test_prose_is_inert(text: str) -> None:
    check_inert(markup.prose(text))


@given(hostile)
def test_plain_text_is_inert_and_says_the_same(text: str) -> None:
    markdown = markup.plain(text)
    check_inert(markdown)
    assert {token.type for token in tokens(markdown)} <= {
        *("paragraph_open", "paragraph_close", "inline", "text", "softbreak", "text_special", "hardbreak")
    }


@given(hostile)
def test_nothing_leaves_a_block(text: str) -> None:
    (token,) = PARSER.parse(markup.block(text, "python"))
    assert token.type == "fence"
    assert token.content.removesuffix("\n") == sanitise(text.strip("\n")).removesuffix("\n")


@given(st.lists(hostile, min_size=1, max_size=3))
def test_nothing_leaves_a_cell(cells: list[str]) -> None:
    markdown = markup.table(cells, [cells], 1)
    check_inert(markdown)
    assert sum(token.type == "td_open" for token in tokens(markdown)) == len(cells)


def test_a_reader_sees_what_was_written() -> None:
    said = "1. not a list: <b> & [x](y) *no* \\ `c`"
    assert PARSER.render(markup.plain(said)).strip() == ("<p>1. not a list: &lt;b&gt; &amp; [x](y) *no* \\ `c`</p>")


def test_prose_keeps_what_does_no_harm() -> None:
    html = PARSER.render(markup.prose("# Title\n\n- **bold** and `a[0]`\n\n```python\nx = [1]\n```\nend"))
    assert "<h1>Title</h1>" in html
    assert "<strong>bold</strong>" in html
    assert "<code>a[0]</code>" in html
    assert '<pre><code class="language-python">x = [1]\n</code></pre>' in html
    assert "<p>end</p>" in html


def test_backslashes_and_quotes_are_shown_as_they_are() -> None:
    assert PARSER.render(markup.prose("C:\\*x* \\`a\\`")) == "<p>C:\\<em>x</em> \\<code>a\\</code></p>\n"


def test_names_of_hosts_and_addresses_do_not_become_links_by_themselves() -> None:
    shown = markup.prose("http://h/ www.h.org WWW.h.org a@h.org ftp://h")
    for mark in ("://", "www.", "WWW.", "@"):
        assert mark not in shown


def test_only_known_languages_are_named() -> None:
    assert markup.prose("```mermaid\ngraph TD\n```").startswith("```text\n")
    assert markup.prose("```Python\nx\n```").startswith("```python\n")


def test_a_block_that_is_not_closed_goes_to_the_end() -> None:
    assert markup.prose("before\n```\n<b>") == "before\n\n```text\n<b>\n```"


def test_terminal_sequences_and_hidden_characters_are_gone() -> None:
    for shown in (markup.prose, markup.plain, markup.block):
        assert "\x1b" not in shown("\x1b[31mred\u202e")
        assert "\u202e" not in shown("\x1b[31mred\u202e")


@pytest.mark.parametrize(
    "text",
    [
        "x" + "`" * 60_000 + "a",
        "~" * 60_000 + "`",
        "~~~" + "a" * 60_000 + "`",
        "`a" * 30_000,
        "`" * 30_000 + "a" * 30_000,
    ],
    ids=["ticks", "tildes", "language", "marks", "ticks and text"],
)
def test_time_grows_with_the_length_of_a_text_alone(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markup, "MAX_SHOWN", len(text))
    assert seconds_of(lambda: markup.prose(text)) < BOUNDED  # it takes a tenth of a second; with the square, 20


def test_code_is_between_runs_of_the_same_length() -> None:
    assert markup.prose("`a` ``b`c``") == "<code>a</code> &#96;&#96;b&#96;c&#96;&#96;"
    assert "<code>" not in markup.prose("``a`")


def test_texts_are_bounded() -> None:
    for shown in (markup.prose, markup.plain, markup.block):
        assert len(shown("[" * 10_000_000)) < 6 * markup.MAX_SHOWN
    wide = markup.table(range(1_000), [range(1_000)] * 1_000, 1_000)
    assert "Not shown: 950 more rows, 980 more columns." in wide
    assert len(wide) < 30_000
