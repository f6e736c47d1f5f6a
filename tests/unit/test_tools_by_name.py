"""Tools by one text each."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from orchestrator.tools.by_name import tool_by_name

DEADLINE = 30.0

INNER = '''
def inner(text: str) -> str:
    """Gives it back.

    Args:
        text: what
    """
    return text
'''
OUTER = """
from pathlib import Path
from orchestrator.tools.by_name import tool_by_name

outer = tool_by_name("cellblock_test_inner:inner", Path({other!r}))
"""


def test_a_module_of_a_tool_may_ask_for_another_tool(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (other / "cellblock_test_inner.py").write_text(INNER)
    (one / "cellblock_test_outer.py").write_text(OUTER.format(other=str(other)))
    found: list[Any] = []
    before = list(sys.path)
    ask = threading.Thread(target=lambda: found.append(tool_by_name("cellblock_test_outer:outer", one)), daemon=True)
    ask.start()
    ask.join(DEADLINE)
    assert [one("text") for one in found] == ["text"]
    assert sys.path == before
