"""What models really write, and the code that is taken from it."""

from __future__ import annotations

import io
import tokenize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agents.parsing import MAX_CODE_CHARS, CodeAction, CodeTags, FormatError, extract_code
from orchestrator.errors import AgentError

TAGS = CodeTags()
MARKDOWN = CodeTags.of("markdown")


def code(reply: str, tags: CodeTags = TAGS) -> str:
    action = extract_code(reply, tags)
    assert isinstance(action, CodeAction), action
    return action.code


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Thought: add.\n<code>\nx = 1\n</code>", "x = 1"),
        ("<code>x = 1</code>", "x = 1"),
        ("Thought.\n<code>\nx = 1\n</code>\nNow I wait.", "x = 1"),
        ("<code>\nx = 1\n</code> and then <code>\ny = 2\n</code>", "x = 1\n\ny = 2"),
        ("<code>\nx = 1", "x = 1"),  # cut at the stop sequence
        ("<code>\nif x:\n    y = 1\n</code>", "if x:\n    y = 1"),
        ("```python\nx = 1\n```", "x = 1"),
        ("```py\nx = 1\n```\ntext", "x = 1"),
        ("```Python\nx = 1\n```", "x = 1"),
        ("```python3 title='a'\nx = 1\n```", "x = 1"),
        ("Use ```python x = 1``` here", "x = 1"),
        ("```python\nx = 1", "x = 1"),
        ("```\nx = 1\n```", "x = 1"),
        ("```python\na\n```\ntext\n```python\nb\n```", "a\n\nb"),
        ("1. Do it:\n   ```python\n   if x:\n       y()\n   ```", "if x:\n    y()"),
        ("<code>\n```python\nx = 1\n```\n</code>", "x = 1"),
        ("```python\n<code>\nx = 1\n</code>\n```", "x = 1"),
        ("<code>\nx = 1\n```", "x = 1"),  # opened one way, closed the other
        ("```python\nx = 1\n</code>", "x = 1"),
        ("```python\nx = 1\n```python\ny = 2\n```", "x = 1\n\ny = 2"),
        ("<code>\r\nx = 1\r\n</code>", "x = 1"),
    ],
)
def test_code_is_found(reply: str, expected: str) -> None:
    assert code(reply) == expected


@pytest.mark.parametrize(
    "source",
    [
        "print('</code>')",
        'print("a </code> b")',
        'x = """\n</code>\n```\n"""',
        "x = r'\\d' + '</code>'",
        "x = 'it\\'s </code>'",
        "html = '''<code>a</code>'''\nprint(html)",
        "# see </code> in the docs\nx = 1",
        "# don't\nx = '</code>'",
        "print('```python')",
        "x = 'a\\\n</code>'",
    ],
)
def test_marks_in_literals_and_comments_do_not_end_a_block(source: str) -> None:
    assert code(f"Thought.\n<code>\n{source}\n</code>\nDone.") == source
    assert code(f"Thought.\n```python\n{source}\n```\nDone.") == source


@pytest.mark.parametrize("source", ["print('oops)", 'x = """never closed', "it's"])
def test_an_unclosed_literal_does_not_swallow_the_closing(source: str) -> None:
    assert code(f"<code>\n{source}\n</code>\nafter") == source


def test_a_comment_may_stand_before_the_closing() -> None:
    assert code("<code>x = 1  # done</code>\nafter") == "x = 1  # done"


def test_a_fence_in_the_thoughts_yields_to_the_tags() -> None:
    assert code("I could\n```python\nbad()\n```\nbut\n<code>\ngood()\n</code>") == "good()"


@pytest.mark.parametrize(
    "mention",
    ["Between <code> and </code>:", "I write `<code>` then `</code>`:", "I use <code> for code:", "I use `<code>`:"],
)
def test_a_mention_of_the_tag_is_not_code(mention: str) -> None:
    assert code(f"{mention}\n<code>\nx = 1\n</code>") == "x = 1"


def test_other_languages_are_never_code() -> None:
    assert isinstance(extract_code("```json\n{}\n```\n```bash\nls\n```", TAGS), FormatError)
    assert code("```json\n{}\n```\n<code>\nx\n</code>") == "x"
    assert code("```text\n<code>\nexample\n</code>\n```\n```python\nx\n```") == "x"


def test_a_reasoning_models_draft_is_skipped() -> None:
    assert code("<think>\n<code>\ndraft()\n</code>\n</think>\n<code>\nfinal()\n</code>") == "final()"


def test_two_blocks_without_closings_are_both_kept() -> None:
    assert code("<code>\nx = 1\n\n<code>\ny = 2\n</code>") == "x = 1\n\ny = 2"


def test_the_thought_and_the_cut_are_told() -> None:
    assert extract_code("Thought: a\n<code>\nx\n</code>", TAGS) == CodeAction("x", "Thought: a", cut=False)
    assert extract_code("Thought: a\n<code>\nx\n", TAGS) == CodeAction("x", "Thought: a", cut=True)


@pytest.mark.parametrize("reply", ["", "hello", "x = 1", "<code></code>", "<code>\n \n</code>", "```", "`x`"])
def test_no_code_is_a_format_error_that_shows_the_form(reply: str) -> None:
    error = extract_code(reply, TAGS)
    assert isinstance(error, FormatError)
    assert "<code>\n# Python code\n</code>" in error.message


def test_the_format_error_tells_how_to_answer() -> None:
    error = extract_code("The final answer is 4.", CodeTags("[PY]", "[/PY]"))
    assert isinstance(error, FormatError)
    assert "[PY]\nfinal_answer(" in error.message


def test_too_much_code_is_a_format_error() -> None:
    error = extract_code("<code>\n" + "x\n" * MAX_CODE_CHARS + "</code>", TAGS)
    assert isinstance(error, FormatError)
    assert "at most" in error.message


def test_markdown_tags() -> None:
    assert MARKDOWN.stop_sequence is None
    assert code("Text\n```python\nx = '```'\n```\nmore", MARKDOWN) == "x = '```'"
    assert code("<code>\nx\n</code>\n```python\ny\n```", MARKDOWN) == "y"


def test_own_tags_are_taken_literally() -> None:
    tags = CodeTags.of(("[CODE.]", "[/CODE.]"))
    assert code("[CODEX]no[/CODEX] [CODE.]\nyes\n[/CODE.]", tags) == "yes"
    assert tags.stop_sequence == "\n[/CODE.]"


@pytest.mark.parametrize("setting", ["xml", ("<a>",), ("", "</a>"), 3, CodeTags("", "")])
def test_wrong_tags_are_refused(setting: object) -> None:
    with pytest.raises(AgentError, match="code_block_tags"):
        CodeTags.of(setting)  # type: ignore[arg-type]


LITERALS = st.lists(st.sampled_from([*"ab '\"\\`#\n", "</code>", "```"]), max_size=20).map("".join).map(repr)
STATEMENTS = st.lists(st.one_of(LITERALS, LITERALS.map(lambda s: f"x = {s}  # c")), min_size=1, max_size=6)


@given(STATEMENTS)
def test_valid_python_survives_whole(statements: list[str]) -> None:
    source = "\n".join(statements)
    list(tokenize.generate_tokens(io.StringIO(source).readline))  # the strategy makes Python
    for reply in (f"Thought\n<code>\n{source}\n</code>\nafter", f"```python\n{source}\n```", f"<code>\n{source}"):
        assert code(reply) == source


PIECES = st.sampled_from(["<code>", "</code>", "```", "python", "\n", "'", '"""', "#", "\\", " ", "x"])


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_text_is_taken_or_refused(reply: str) -> None:
    for tags in (TAGS, MARKDOWN):
        match extract_code(reply, tags):
            case CodeAction(code=found):
                assert found.strip()
            case FormatError(message=message):
                assert message


@pytest.mark.parametrize(
    "piece",
    ["'\\", '"""\\', "\\'", "```\n", "```json\n", "<code>", "</code>", "#`", "`<code>", "\n ", "<code>\n```py\n"],
)
def test_hostile_replies_cost_no_more_than_their_length(piece: str) -> None:
    # Quadratic work on a megabyte would outlast the time limit of the test run by far.
    extract_code("<code>\n" + piece * (1_000_000 // len(piece)), TAGS)
    extract_code(piece * (1_000_000 // len(piece)), TAGS)
