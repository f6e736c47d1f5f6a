"""Models that users write themselves: simple ones, old ones, and those that stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.agents import CodeAgent, ToolCallingAgent
from orchestrator.errors import AgentError
from orchestrator.models import ChatMessage, ChatToolCall, ModelDelta, ModelReply, TokenUsage
from tests.unit.fake_sandbox import FakeSandbox, answered
from tests.unit.scripted_agents import agent_with, ended, step


def test_a_model_that_runs_out_of_replies_by_next_does_not_hang() -> None:
    class Iterating:
        def generate(self, messages: Any, stop_sequences: Any = ()) -> str:
            return next(iter(()))

    agent = agent_with([], [])
    agent.model = Iterating()
    assert isinstance(ended(lambda: agent.run("task")), AgentError)


class WithKeywords:
    def generate(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        assert set(kwargs) == {"stop_sequences", "tools"}
        return ModelReply('{"name": "final_answer", "arguments": {"answer": 1}}')


class OnlyMessages:
    def generate(self, messages: Sequence[ChatMessage]) -> Any:
        return '{"name": "final_answer", "arguments": {"answer": 1}}'


class WithStops:
    def generate(self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str] = ()) -> Any:
        function = SimpleNamespace(name="final_answer", arguments='{"answer": 1}')
        usage = SimpleNamespace(input_tokens=3, output_tokens=4)
        return SimpleNamespace(
            content=None, tool_calls=[SimpleNamespace(function=function, id=None)], token_usage=usage
        )


class OurMessage:
    async def generate(self, messages: Any, stop_sequences: Any = (), **more: Any) -> Any:
        return ChatMessage("assistant", "", tool_calls=(ChatToolCall("final_answer", {"answer": 1}, "1"),))


@pytest.mark.parametrize("model", [OnlyMessages(), WithStops(), OurMessage(), WithKeywords()])
def test_simple_models_work_with_tool_calls(model: Any) -> None:
    agent = ToolCallingAgent([], model, verbosity_level=-1)
    result = agent.run("task", return_full_result=True)
    assert result.output == 1
    assert result.token_usage == (TokenUsage(3, 4) if isinstance(model, WithStops) else None)


def test_streams_of_users_own_models() -> None:
    class Pieces:
        def __init__(self) -> None:
            self._left = [ModelDelta(text) for text in (step("final_answer(1)")[:9], step("final_answer(1)")[9:])]

        def __aiter__(self) -> Pieces:
            return self

        async def __anext__(self) -> ModelDelta:
            if not self._left:
                raise StopAsyncIteration
            return self._left.pop(0)

    class Iterator_:
        async def generate(self, messages: Any, stop_sequences: Any = ()) -> ModelReply:
            return ModelReply("")

        def generate_stream(self, messages: Any, stop_sequences: Any = ()) -> AsyncIterator[ModelDelta]:
            return Pieces()

    class Sync(Iterator_):
        def generate_stream(self, messages: Any, stop_sequences: Any = ()) -> Any:
            yield ModelDelta("x")

    sandbox = FakeSandbox([answered(1)])
    assert CodeAgent([], Iterator_(), sandbox=sandbox, stream_outputs=True, verbosity_level=-1).run("task") == 1
    with pytest.raises(AgentError, match="async def"):
        CodeAgent([], Sync(), sandbox=FakeSandbox(), stream_outputs=True)
