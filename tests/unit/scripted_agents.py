"""Agents with a scripted model and a fake sandbox, for the tests of the loop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from orchestrator.agents import CodeAgent
from orchestrator.models import ChatMessage, ModelReply, ScriptedModel
from tests.unit.fake_sandbox import FakeSandbox, Scripted

DEADLINE = 10.0  # seconds for anything that is waited for


class BranchedModel:
    """A model for several agents that ask it in turns: each is told one script from its start to its end.

    A request that does not end with a reply of this model begins the next script. Replies must differ from one another.
    """

    def __init__(self, *scripts: Sequence[str | Exception]) -> None:
        self._beginnings = [script[0] for script in scripts]
        self._next = {before: after for script in scripts for before, after in pairwise(script)}
        self.requests: list[tuple[ChatMessage, ...]] = []

    async def generate(self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str] = ()) -> ModelReply:
        self.requests.append(tuple(messages))
        said = [message.content for message in messages if message.role == "assistant"]
        reply = self._next[said[-1]] if said and said[-1] in self._next else self._beginnings.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return ModelReply(reply)


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
