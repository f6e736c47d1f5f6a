"""Settings files, and modules of tools beside them, for the tests of what is configured."""

from __future__ import annotations

import itertools
from pathlib import Path

from orchestrator.configured import ServiceSettings

_numbers = itertools.count()

SHOP = '''
from orchestrator import Tool

CALLED = []

def orders(customer: str) -> list[str]:
    """The orders of a customer.

    Args:
        customer: who.
    """
    CALLED.append(("orders", customer))
    return ["tea", "rice"]

def send_mail(to: str) -> str:
    """Sends a mail.

    Args:
        to: whom.
    """
    CALLED.append(("send_mail", to))
    return f"sent to {to}"

class Papers(Tool):
    name = "papers"
    description = "Looks things up."
    inputs = {"about": {"type": "string", "description": "what"}}
    output_type = "string"

    def forward(self, about: str) -> str:
        CALLED.append(("papers", about))
        return f"all about {about}"

papers = Papers()

def untyped(a):
    return a
'''


def shop(folder: Path) -> str:
    """Writes a module of tools there; gives its name, which no other module of this process has."""
    name = f"shop_{next(_numbers)}_of_tests"
    (folder / f"{name}.py").write_text(SHOP, "utf-8")
    return name


def written(folder: Path, text: str) -> Path:
    """The settings file with that text."""
    file = folder / "cellblock.toml"
    file.write_text(text, "utf-8")
    return file


def load(folder: Path, text: str, **env: str) -> ServiceSettings:
    """The settings of a file with that text."""
    return ServiceSettings.load(written(folder, text), env)
