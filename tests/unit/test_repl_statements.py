"""Where a statement ends, and what the next line begins with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.repl.statements import indentation, is_complete, statements

# Text of the characters that mean something here, and of all others.
CODE = st.text(st.sampled_from("'\"()[]{}\\\n #%:@ adefils") | st.characters(), max_size=60)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "x = 1",
        "x: int = 3",
        "f(\n    1,\n)",
        "'''two\nlines'''",
        '""""a"""',
        '""',
        '"it\'s ("',
        "'not closed, which is an error",
        "'one \\\nstring'",
        "x = 1 + \\\n    2",
        "x = 1 \\\n",
        "# a comment ( and '''",
        "x = 1  # (",
        "(]",
        "))",
        "r'\\'",
        "def f():\n    return 1\n",
        "def f():\n    return 1\n    ",
        "while True: pass\n",
        "def f():\n",  # an error; Python says so
        "format = 3",
        "%checkpoint it's (",
        "%switch x:",
    ],
)
def test_complete(text: str) -> None:
    assert is_complete(text)


@pytest.mark.parametrize(
    "text",
    [
        "f(",
        "f(\n",
        "f('''\n)",
        "x = {'a': [1,\n\n",
        "'''open",
        "'''open''",
        '"""open \\"""',
        "x = 1 \\",
        "'open \\",
        "def f():",
        "def f():\n    return 1",
        "def f():\n    # a comment",
        "async def f(): pass",
        "if x: y",
        "match x:",
        "@decorated",
        "if x:\n    y\nelse:",
        "(\n%d)[",
    ],
)
def test_incomplete(text: str) -> None:
    assert not is_complete(text)


def test_statements_are_taken_apart_as_in_a_file() -> None:
    text = """# first of all
x = 1; y = 2

def f():
    '''
def not_this_one():
'''

    return (1,
%2)
f()
%checkpoint it's (
%undo
@twice
@thrice
class A: pass
if x:
    1
elif y:
    2

else:
    3
try: f()
except E: g()
finally: h()
"""
    assert statements(text) == [
        "x = 1; y = 2",
        "def f():\n    '''\ndef not_this_one():\n'''\n\n    return (1,\n%2)",
        "f()",
        "%checkpoint it's (",
        "%undo",
        "@twice\n@thrice\nclass A: pass",
        "if x:\n    1\nelif y:\n    2\n\nelse:\n    3",
        "try: f()\nexcept E: g()\nfinally: h()",
    ]


def test_nothing_is_no_statement() -> None:
    assert statements("") == statements("\n \n# nothing\n") == []


@pytest.mark.parametrize(
    ("text", "margin"),
    [
        ("x = 1", ""),
        ("def f():", "    "),
        ("def f():\n    if x:", "        "),
        ("def f():\n    x = 1", "    "),
        ("def f():\n    return 1", ""),
        ("def f():\n    for x in y:\n        continue", "    "),
        ("x = [", "    "),
        ("pass", ""),
        ("", ""),
    ],
)
def test_the_next_line_is_indented(text: str, margin: str) -> None:
    assert indentation(text) == margin


@given(CODE)
def test_any_text_has_an_answer(text: str) -> None:
    is_complete(text)
    assert not indentation(text).strip()


@given(CODE)
def test_taking_apart_loses_nothing_but_blanks_and_what_comes_before_the_first_statement(text: str) -> None:
    parts = "".join("".join(part.split()) for part in statements(text))
    assert "".join(text.split()).endswith(parts)


@given(CODE)
def test_each_statement_but_the_last_is_complete_in_itself(text: str) -> None:
    assert all(is_complete(f"{part}\n\n") for part in statements(text)[:-1])
