"""The contracts of imports in pyproject.toml: import-linter holds the code to them; these hold them to the code."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
    "contracts"
]


def contract(name: str) -> dict[str, Any]:
    return next(one for one in CONTRACTS if one["name"] == name)


def test_what_says_that_it_does_no_io_is_held_to_it() -> None:
    held = set(contract("The logic does no I/O")["source_modules"])
    says = set()
    for path in (ROOT / "orchestrator").rglob("*.py"):
        if "no i/o" in (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").lower():
            says.add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert says
    assert says - held == set()


def test_every_module_has_its_layer() -> None:
    assert contract("One direction: who is above may import who is below")["exhaustive"] is True
