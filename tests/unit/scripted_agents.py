"""Agents with a scripted model and a fake sandbox, for the tests of the loop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from orchestrator.agents import (
    CodeAgent,
)
from orchestrator.models import ChatMessage, ModelReply, ScriptedModel
from tests.unit.fake_sandbox import FakeSandbox, Scripted


def step(code: str) -> str:
    return f"Thought: go on.\n<code>\n{code}\n</code>"


def agent_with(replies: Sequence[str | ModelReply], script: Sequence[Scripted], **more: Any) -> CodeAgent:
    sandbox = FakeSandbox(script)
    agent = CodeAgent([], ScriptedModel(replies), sandbox=sandbox, **more)
    agent.fake = sandbox  # type: ignore[attr-defined]
    return agent


def last_user_text(agent: CodeAgent) -> str:
    message = agent.write_memory_to_messages()[-1]
    assert message.role == "user"
    return re.sub(r"output-[0-9a-f]{8}", "FENCE", message.content)


def requests(agent: CodeAgent) -> list[tuple[ChatMessage, ...]]:
    assert isinstance(agent.model, ScriptedModel)
    return agent.model.requests
