"""docs/threat-model.md makes no claim without a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "docs/threat-model.md").read_text("utf-8")
PROMISES = re.findall(r"^\| (P\d+) \|.*\|([^|]*)\|$", MODEL, re.MULTILINE)


def defined_in(file: str) -> set[str]:
    """Every name that the module has at its top."""
    names = set()
    for node in ast.parse((ROOT / "tests" / file).read_text("utf-8")).body:
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
                names.add(name)
            case ast.Assign([ast.Name(name)]):
                names.add(name)
    return names


def test_the_promises_are_numbered_without_a_gap() -> None:
    assert [name for name, _ in PROMISES] == [f"P{n}" for n in range(1, len(PROMISES) + 1)]
    assert len(PROMISES) == 14


@pytest.mark.parametrize(("promise", "held_by"), PROMISES, ids=[name for name, _ in PROMISES])
def test_every_promise_is_held_by_tests_that_exist(promise: str, held_by: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", held_by)
    assert named
    assert held_by.count("::") == len(named)
    for file, name in named:
        assert name in defined_in(file), f"{promise}: {file} has no {name}"
