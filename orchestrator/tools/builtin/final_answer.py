"""``final_answer`` for agents whose model calls tools. In a sandbox the function of that name is the sandbox's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.tools.schema import Schema
from orchestrator.tools.tool import Tool


class FinalAnswerTool(Tool):
    """Gives back what it is called with. The agent ends its run with that."""

    name = "final_answer"
    description = "Ends the task with the answer to it."
    inputs: Mapping[str, Schema] = {"answer": {"type": "any", "description": "the answer"}}
    output_type = "any"
    _ends_a_run = True

    def forward(self, answer: Any) -> Any:
        """The answer."""
        return answer
