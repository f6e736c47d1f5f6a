"""Programs of the documentation, found by their marks and run as a user would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from orchestrator import Config
from orchestrator.sandbox.leftovers import list_containers
from tests.unit.chat_server import ChatServer

SECONDS = 60  # for one program


def marked(text: str, test: str) -> list[tuple[str, str]]:
    """The programs that a comment above them says to be run by ``test``, each with what it prints, told below it."""
    mark = rf"<!-- run by {re.escape(test)}[^>]*-->\n"
    return re.findall(rf"{mark}```python\n(.*?)```\n```text\n(.*?)```\n", text, re.S)


def run(program: str, folder: Path, env: Mapping[str, str]) -> str:
    """What the program prints: in a process of its own, in a folder of its own. It may leave no container behind."""
    file = folder / "example.py"
    file.write_text(program, "utf-8")
    process = subprocess.Popen(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, **env},
    )
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    left = [found for found in list_containers(Config.load()) if found.owner.startswith(f"{process.pid}:")]
    assert left == []
    return out


def asking(server: ChatServer) -> Mapping[str, str]:
    """The environment of a program whose model is ``server``."""
    return {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-of-nobody"}
