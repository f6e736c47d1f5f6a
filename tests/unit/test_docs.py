"""What the documentation names is there: Python compiles, imports and links exist, tables are those of the code."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

import orchestrator
from orchestrator import CodeAgent, LogLevel, MultiStepAgent, ToolCallingAgent, cli, running
from orchestrator.agents import AgentEvent
from orchestrator.agents.steps import ErrorKind
from orchestrator.configured import AgentTable, McpTable, ModelTable, PolicyRule, PoolTable, ServiceTable
from orchestrator.events import ExecutionEvent
from orchestrator.models.by_name import PROVIDERS
from orchestrator.tools import base_tools
from orchestrator.ui import GradioUI

ROOT = Path(__file__).parents[2]
FILES = {str(file.relative_to(ROOT)): file.read_text("utf-8") for file in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
BLOCK = re.compile(r"```python\n(.*?)```", re.S)
BLOCKS = [
    pytest.param(block, id=f"{name}-{number}")
    for name, text in sorted(FILES.items())
    for number, block in enumerate(BLOCK.findall(text), 1)
]
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([\w-]+))?\)")
# Of smolagents, in the guide for those who come from there.
THEIRS = frozenset({"smolagents"})


def table(name: str, heading: str) -> list[list[str]]:
    """The cells of the table of that file whose first column is called so, without the code marks."""
    found = re.search(rf"^\| `?{re.escape(heading)}`? \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", FILES[name], re.M)
    assert found, f"{name} has no table {heading!r}"
    lines = found[1].splitlines()
    return [[cell.strip().replace("`", "") for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Module and name of each import of ours; the name is empty where the module is imported as such."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from ((alias.name, "") for alias in names)
            case ast.ImportFrom(str(module), names):
                yield from ((module, alias.name) for alias in names)


def anchors(text: str) -> set[str]:
    """What a link can lead to, as GitHub makes it of headings."""
    return {re.sub(r"[^\w\- ]", "", found.lower()).replace(" ", "-") for found in re.findall(r"^#+ (.+)$", text, re.M)}


# --------------------------------------------------------------------------------------------------------- programs


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_python_compiles_and_what_it_imports_of_us_exists(block: str) -> None:
    compile(block, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    for module, name in imported(ast.parse(block)):
        if module.partition(".")[0] != "orchestrator":
            continue
        home = importlib.import_module(module)
        assert not name or hasattr(home, name), f"{module} has no {name}"


def test_every_block_of_python_says_what_runs_it_or_why_nothing_does() -> None:
    marks = [mark for text in FILES.values() for mark in re.findall(r"^<!-- ((?:not )?run\b.*) -->$", text, re.M)]
    marked = [found for text in FILES.values() for found in re.findall(r"^<!-- (.*) -->\n```python$", text, re.M)]
    assert marked == marks
    assert len(marks) == len(BLOCKS)
    for mark in marks:
        runner = re.match(r"run by (tests/\S+\.py)\b", mark)
        assert (ROOT / runner[1]).exists() if runner else re.fullmatch("not run: .+", mark), mark


RUN_HERE = [
    pytest.param(block, id=f"{name}-{number}")
    for name, text in sorted(FILES.items())
    for number, block in enumerate(
        re.findall(r"^<!-- run by tests/unit/test_docs.py -->\n```python\n(.*?)```", text, re.S | re.M)
    )
]


@pytest.mark.parametrize("block", RUN_HERE)
def test_a_program_that_asks_nobody_runs(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    exec(block, {"__name__": "__main__"})


def test_no_program_of_theirs_is_taken_for_one_of_ours() -> None:
    foreign = {
        name
        for name, text in FILES.items()
        for block in BLOCK.findall(text)
        for module, _ in imported(ast.parse(block))
        if module.partition(".")[0] in THEIRS
    }
    assert foreign <= {"docs/from-smolagents.md"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_a_file_links_to_is_there(name: str) -> None:
    for path, anchor in LINK.findall(FILES[name]):
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.exists(), f"{name} links to {path}"
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), f"{name} links to {path}#{anchor}"


# ----------------------------------------------------------------------------------------------------------- tables


def test_every_event_of_a_run_is_in_the_table() -> None:
    written = {name for row in table("docs/agents.md", "event") for name in row[0].split(", ")}
    events = {kind.__name__ for kind in (*get_args(AgentEvent), *get_args(ExecutionEvent)) if hasattr(kind, "__name__")}
    assert events <= written


@pytest.mark.parametrize("row", table("docs/agents.md", "event"), ids=lambda row: row[0])
def test_an_event_can_be_imported_from_where_the_table_says(row: list[str]) -> None:
    home = importlib.import_module(row[2])
    assert all(hasattr(home, name) for name in row[0].split(", "))


def test_every_argument_of_a_run_is_in_the_table() -> None:
    written = {row[0] for row in table("docs/agents.md", "argument")}
    assert set(inspect.signature(MultiStepAgent.run).parameters) - {"self"} <= written


def test_every_kind_of_error_is_in_the_table() -> None:
    assert [row[0] for row in table("docs/agents.md", "error.kind")] == list(get_args(ErrorKind))


def test_every_level_of_what_is_shown_is_in_the_table() -> None:
    written = {row[0].partition(",")[0] for row in table("docs/agents.md", "verbosity_level")}
    assert written == {f"LogLevel.{level.name} ({level.value})" for level in LogLevel}


def test_the_table_of_providers_is_that_of_the_code() -> None:
    assert dict(table("docs/models.md", "provider")) == {name: kind for name, (_, kind) in PROVIDERS.items()}


def test_every_model_is_in_the_table() -> None:
    written = " ".join(row[0] for row in table("docs/models.md", "class"))
    named = {name for name in orchestrator.__all__ if name.endswith("Model")}
    assert named <= set(re.findall(r"\w+", written))


def test_every_tool_that_comes_along_is_in_the_table() -> None:
    rows = table("docs/tools.md", "tool")
    named = {name for name in orchestrator.__all__ if name.endswith("Tool") and name != "Tool"}
    assert named <= {row[0].partition("(")[0] for row in rows}
    assert set(base_tools()) <= {row[1] for row in rows}


@pytest.mark.parametrize("kind", [MultiStepAgent, CodeAgent, ToolCallingAgent], ids=lambda kind: kind.__name__)
def test_every_argument_of_an_agent_is_in_the_guide_for_those_who_come_from_smolagents(kind: type) -> None:
    named = set(re.findall(r"`(\w+)`", FILES["docs/from-smolagents.md"]))
    assert set(inspect.signature(kind).parameters) - {"settings"} <= named


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("[service]", ServiceTable),
        ("[models.NAME]", ModelTable),
        ("[mcp.NAME]", McpTable),
        ("[agents.NAME]", AgentTable),
        ("[pools.NAME]", PoolTable),
        ("[[policy]]", PolicyRule),
    ],
)
def test_every_key_of_the_settings_file_is_in_its_table_with_its_default(heading: str, kind: type) -> None:
    written = {row[0]: row[1] for row in table("docs/configuration.md", heading)}
    assert written == {known.name: default_of(known) for known in dataclasses.fields(kind)}
    assert list(written) == [known.name for known in dataclasses.fields(kind)]


def default_of(known: dataclasses.Field[Any]) -> str:
    """As the tables tell it."""
    if known.default_factory is not dataclasses.MISSING:
        return str(dict(known.default_factory()))
    match known.default:
        case dataclasses.MISSING:
            return "needed"
        case None:
            return "unset"
        case bool():
            return str(known.default).lower()
        case int() | float():
            return f"{known.default:g}"
    return str(list(known.default)) if isinstance(known.default, tuple) else str(known.default)


def test_a_page_is_shared_only_if_one_says_so_and_launch_is_as_the_guide_says() -> None:
    (written,) = re.findall(r"`launch\((.*?)\)` takes", FILES["docs/gradio.md"])
    _, share, hosts, more = inspect.signature(GradioUI.launch).parameters.values()
    assert written == f"{share.name}={share.default}, {hosts.name}={hosts.default}, **{more.name}"
    assert share.default is False


def test_every_option_of_run_is_in_the_readme() -> None:
    parser = argparse.ArgumentParser()
    running.add_arguments(parser)
    known = {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}
    written = {option for row in table("README.md", "option") for option in re.findall(r"--[\w-]+", row[0])}
    assert known <= written
    assert written - known == {"--imports", "--timeout", "--memory"}  # those of its sandbox


def test_skipped_is_only_what_contributing_lists_and_nothing_of_the_lock() -> None:
    rows = re.findall(r"^\| (.*?) \|", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.M)
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    asked = {
        name.strip('"').partition(".")[0]
        for file in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"pytest\.importorskip\(([^)]*)\)", file.read_text("utf-8"))
    }
    assert asked == listed
    locked = set(re.findall(r"^([\w-]+)==", (ROOT / "requirements-dev.lock").read_text("utf-8"), re.M))
    assert not listed & {name.replace("-", "_") for name in locked}


def test_every_command_and_every_guide_is_in_the_readme() -> None:
    shown = set(re.findall(r"^\$ cellblock (\w+)", FILES["README.md"], re.M))
    (commands,) = (
        action.choices for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    assert shown == set(commands)
    (guides,) = re.findall(r"^\| `docs/` \| (.*) \|$", FILES["README.md"], re.M)
    assert set(re.findall(r"\((docs/[\w-]+\.md)\)", guides)) == FILES.keys() - {"README.md"}


def test_every_extra_is_in_the_readme() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert [row[0] for row in table("README.md", "extra")] == [
        name for name in project["optional-dependencies"] if name != "dev"
    ]
