"""Agents with a scripted model and a fake sandbox, for the tests of the loop."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from orchestrator.agents import ActionStep, CallResult, CodeAgent, MultiStepAgent, ToolCallingAgent
from orchestrator.models import ChatMessage, ChatToolCall, ModelReply, ScriptedModel, TokenUsage
from tests.unit.fake_sandbox import FakeSandbox, Scripted

DEADLINE = 30.0  # seconds for anything that is waited for


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


def calls(*made: tuple[str, Any], text: str = "", usage: TokenUsage | None = None) -> ModelReply:
    """A reply that calls tools: pairs of a name and its arguments."""
    given = tuple(ChatToolCall(name, arguments, f"c{n}") for n, (name, arguments) in enumerate(made))
    return ModelReply(text, usage, given)


def final(answer: Any, usage: TokenUsage | None = None) -> ModelReply:
    return calls(("final_answer", {"answer": answer}), usage=usage)


def agent_with(replies: Sequence[str | ModelReply], script: Sequence[Scripted], **more: Any) -> CodeAgent:
    sandbox = FakeSandbox(script)
    agent = CodeAgent([], ScriptedModel(replies), sandbox=sandbox, **more)
    agent.fake = sandbox  # type: ignore[attr-defined]
    return agent


def caller_with(tools: Any, *replies: str | ModelReply, **more: Any) -> ToolCallingAgent:
    return ToolCallingAgent(tools, ScriptedModel(replies), **({"verbosity_level": -1} | more))


def results(agent: MultiStepAgent, at: int = 1) -> tuple[CallResult, ...]:
    """What the calls of a step gave."""
    found = agent.memory.steps[at]
    assert isinstance(found, ActionStep)
    return found.tool_calls


def told(agent: MultiStepAgent, at: int = 1) -> list[str]:
    """The same as the model is told it."""
    return [result.text for result in results(agent, at)]


def last_user_text(agent: CodeAgent) -> str:
    message = agent.write_memory_to_messages()[-1]
    assert message.role == "user"
    return re.sub(r"output-[0-9a-f]{8}", "FENCE", message.content)


def requests(agent: MultiStepAgent) -> list[tuple[ChatMessage, ...]]:
    assert isinstance(agent.model, ScriptedModel)
    return agent.model.requests


def ended(call: Callable[[], Any]) -> Any:
    """What it gives or raises, in a thread: for what could hang for ever."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 - all of it is the outcome
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert outcome, "it did not end"
    return outcome[0]
