"""Parts of agents that can be imported by their names, for the tests of saving and loading."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from orchestrator import AgentMemory, CodeAgent, OpenAIServerModel, Tool, ToolCallingAgent, tool
from orchestrator.agents.compaction import Conversation
from orchestrator.agents.steps import KeptStep

SUFFIX = "!"  # a tool's own module-level constant


def model(name: str = "m", **more: Any) -> OpenAIServerModel:
    """A model of a server that nobody asks anything; a usual one, but for its key."""
    return OpenAIServerModel(name, api_key="sk-a-key-that-must-not-be-saved", **more)


@tool
def shout(text: str) -> str:
    """Says it loudly.

    Args:
        text: what
    """
    return text.upper() + SUFFIX


class Repeat(Tool):
    """A tool with a setting of its own."""

    name = "repeat"
    description = "Repeats."
    inputs = {"text": {"type": "string", "description": "what"}}  # noqa: RUF012
    output_type = "string"

    def __init__(self, times: int = 2, **more: Any) -> None:
        self.times = times
        self.more = more

    def forward(self, text: str) -> str:
        return text * self.times


def on_step(step: Any) -> None:
    """A step callback."""


def on_plan(step: Any, agent: Any) -> None:
    """Another."""


def is_short(answer: Any, memory: AgentMemory) -> bool:
    """A check."""
    return len(str(answer)) < 100


def nothing(conversation: Conversation) -> Sequence[KeptStep] | None:
    """A compaction."""
    return None


# Data of an agent, to be changed.


def good_data() -> dict[str, Any]:
    """An agent with a tool and a member."""
    member = ToolCallingAgent([], model(), name="member", description="m")
    return CodeAgent([Repeat()], model(), managed_agents=[member]).to_dict()


def put(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return copy.deepcopy(data) | changes


def model_data(kind: str = "OpenAIServerModel", **data: Any) -> dict[str, Any]:
    return {"class": kind, "data": {"model_id": "m", **data}}
