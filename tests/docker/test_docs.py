"""The guides in docs/ taken at their word: the programs marked there run, and print what stands below them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from orchestrator import Config
from tests.docker.programs import asking, marked, run
from tests.unit.chat_server import Answer, completion, serving

pytestmark = pytest.mark.docker

DOCS = Path(__file__).parents[2] / "docs"
MARKED = "tests/docker/test_docs.py"


def code(*lines: str) -> Answer:
    """A reply that acts by code."""
    return completion("Thought: go on.\n<code>\n" + "\n".join(lines) + "\n</code>")


def calls(*made: tuple[str, Mapping[str, object]]) -> Answer:
    """A reply that calls tools."""
    return completion(
        tool_calls=[
            {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for number, (name, arguments) in enumerate(made)
        ]
    )


# What the model says in each program that asks one: words that are in that program alone -> its replies.
REPLIES: Mapping[str, Sequence[Answer]] = {
    "managed_agents=[weather]": (
        code("found = weather(task='The temperatures of Oslo and Rome, as a dict.')", "found"),
        calls(("temperature", {"city": "Oslo"}), ("temperature", {"city": "Rome"})),
        calls(("final_answer", {"answer": {"Oslo": 11.5, "Rome": 24.0}})),
        code("final_answer(found['Rome'] - found['Oslo'])"),
    ),
    "case Output(stream, text)": (
        code("print(len(numbers), 'numbers')"),
        code("final_answer(sum(numbers) / len(numbers))"),
    ),
    "Sizes of a table": (
        code("import pandas", "table = pandas.DataFrame(rows)", "print(table.shape)"),
        code("final_answer({'rows': len(table), 'sum': int(table['n'].sum())})"),
        code("final_answer(sorted(table['n']))"),
    ),
}
PROGRAMS = [
    pytest.param(*found, id=f"{file.name}-{number}")
    for file in sorted(DOCS.glob("*.md"))
    for number, found in enumerate(marked(file.read_text("utf-8"), MARKED), 1)
]


def test_every_marked_program_is_one_of_these() -> None:
    marks = sum(file.read_text("utf-8").count(f"<!-- run by {MARKED}") for file in DOCS.glob("*.md"))
    assert len(PROGRAMS) == marks > len(REPLIES)


@pytest.mark.parametrize(("program", "printed"), PROGRAMS)
def test_a_program_prints_what_the_documentation_says(
    config: Config, tmp_path: Path, program: str, printed: str
) -> None:
    replies = [said for words, said in REPLIES.items() if words in program]
    assert len(replies) == ("OpenAI" in program)
    with serving(*(replies[0] if replies else [completion("nobody asks")])) as server:
        out = run(program, tmp_path, asking(server))
    assert out == printed
    assert len(server.requests) == sum(map(len, replies))
