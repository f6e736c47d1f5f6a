"""What each third-party package needs to be imported: its own files and folders, and those of all that it requires."""

from __future__ import annotations

import json
import re
from importlib.metadata import Distribution, distributions
from pathlib import Path

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][\w.-]*)")
_UNWANTED = ("extra ==", "extra==")  # an option that nobody has chosen


def write_map(packages: Path, target: Path) -> None:
    """A JSON object: top-level name -> entries of the folder ``packages`` that importing it may read."""
    target.write_text(json.dumps(needs(packages), indent=1, sort_keys=True), "utf-8")


def needs(packages: Path) -> dict[str, list[str]]:
    """As ``write_map`` writes it."""
    installed = {_normal(d.metadata["Name"]): d for d in distributions(path=[str(packages)])}
    entries = {name: _entries(distribution, packages) for name, distribution in installed.items()}
    found: dict[str, set[str]] = {}
    for name in installed:
        everything = {entry for needed in _closure(name, installed) for entry in entries[needed]}
        for entry in entries[name]:
            if (module := entry.removesuffix(".py")).isidentifier():
                found.setdefault(module, set()).update(everything)
    return {module: sorted(all_of_it) for module, all_of_it in found.items()}


def _entries(distribution: Distribution, packages: Path) -> set[str]:
    names = {file.parts[0] for file in distribution.files or ()}
    return {name for name in names if name not in ("..", "__pycache__", "bin") and (packages / name).exists()}


def _closure(name: str, installed: dict[str, Distribution]) -> set[str]:
    found, waiting = {name}, [name]
    while waiting:
        for needed in _required(installed[waiting.pop()]):
            if needed in installed and needed not in found:
                found.add(needed)
                waiting.append(needed)
    return found


def _required(distribution: Distribution) -> set[str]:
    lines = [line for line in distribution.requires or () if not any(mark in line for mark in _UNWANTED)]
    return {_normal(match[1]) for line in lines if (match := _REQUIREMENT.match(line))}


def _normal(name: str) -> str:
    """As names of distributions are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
