"""``ToolCallingAgent``: its actions are tool calls, written as JSON and carried out on the host."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, Unpack

from orchestrator.agents.calling import Callables, carried_out, checked_threads, stands_for
from orchestrator.agents.given import Given
from orchestrator.agents.interruption import Interruption
from orchestrator.agents.loop import MultiStepAgent
from orchestrator.agents.loose_json import NotJson, read_value
from orchestrator.agents.observation import Observation
from orchestrator.agents.outcome import Outcome
from orchestrator.agents.overheard import with_team
from orchestrator.agents.parsing import FormatError
from orchestrator.agents.rebuilding import Rebuilding
from orchestrator.agents.recording import Recording
from orchestrator.agents.replies import Question
from orchestrator.agents.run import AgentEvent
from orchestrator.agents.settings import AgentSettings, checked_settings
from orchestrator.agents.steps import CallResult, StepError
from orchestrator.agents.tape import taped, use_tape
from orchestrator.agents.written_calls import written_calls
from orchestrator.audit import Journal
from orchestrator.config import Config
from orchestrator.events import FinalAnswer, ToolCall, ToolOutcome
from orchestrator.media import Media
from orchestrator.models import ChatToolCall, Model, ModelReply, ToolSchema
from orchestrator.policy import Approve
from orchestrator.sandbox.approval import Approver
from orchestrator.sandbox.foreign import Foreign
from orchestrator.tools import Tool

FINAL_ANSWER = "final_answer"
MAX_NAME = 64  # characters of a tool's name: https://platform.openai.com/docs/api-reference/chat/create
_NAME = re.compile(rf"[a-zA-Z0-9_-]{{1,{MAX_NAME}}}")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")
_FINAL_ANSWER = ToolSchema(
    FINAL_ANSWER,
    "Gives the final answer to the task, and ends it. Call it alone.",
    {
        "type": "object",
        "properties": {"answer": {"description": "the answer: text, number, list or object"}},
        "required": ["answer"],
        "additionalProperties": False,
    },
)


class ToolCallingAgent(MultiStepAgent):
    """An agent that acts by calling tools, which run on the host; it writes no code, and needs no sandbox.

    Models with native tool calling are told of the tools by their API; of others, calls that they write as JSON are
    understood. The calls of one reply are carried out at the same time; each has its own result or error.

    Args:
        tools, model, and all others: see ``MultiStepAgent``.
        max_tool_threads: calls at the same time; default 16.
        tool_timeout: seconds for one call of a tool that sets none of its own; default as for sandboxes (60).
        approve: asked before each tool call, with a ``ToolCallRequest``. A refusal is told to the model.
        config: settings; default ``Config.load()``.
    """

    _prompts = "tool_calling_agent"

    def __init__(
        self,
        tools: Sequence[Tool | Callable[..., Any]],
        model: Model,
        prompt_templates: Mapping[str, Any] | str | Path | None = None,
        *,
        max_tool_threads: int | None = None,
        tool_timeout: float | None = None,
        approve: Approve | None = None,
        config: Config | None = None,
        **settings: Unpack[AgentSettings],
    ) -> None:
        checked_settings(type(self), settings)
        super().__init__(tools, model, prompt_templates, **settings)
        config = config or Config.load()
        if tool_timeout is not None:
            config = replace(config, tool_timeout=tool_timeout)  # with its bounds
        self._max_tool_threads = max_tool_threads
        self.state: dict[str, Any] = {}
        self._schemas = (*self.equipment.schemas(), _FINAL_ANSWER)
        self._callables = Callables(
            {tool.name: tool for tool in taped(self.equipment.callables.values())},
            Approver(approve, config.approval_timeout),
            Journal.at(config.audit).record,
            config.tool_timeout,
            checked_threads(max_tool_threads),
            self.state,
        )

    @property
    def max_tool_threads(self) -> int | None:
        """Calls at the same time; None for the default."""
        return self._max_tool_threads

    @property
    def tool_timeout(self) -> float:
        """Seconds for one call of a tool that sets none of its own."""
        return self._callables.timeout

    def _question(self) -> Question:
        return Question(self.write_memory_to_messages(), ("\nObservation:",), self._schemas)

    async def _open(self, given: Given) -> None:
        self.state |= given.additional_args

    async def _act(self, reply: ModelReply, interruption: Interruption) -> AsyncGenerator[AgentEvent | Outcome, None]:
        calls = [_sendable(call) for call in reply.tool_calls] or written_calls(reply.text)
        if isinstance(calls, FormatError):
            yield Outcome(reply.text, error=StepError("format", calls.message))
            return
        others = [call for call in calls if call.name != FINAL_ANSWER]
        results: list[CallResult] = []
        async with aclosing(with_team(self._carried_out(others, interruption))) as events:
            async for event in events:
                if isinstance(event, CallResult):
                    results.append(event)
                else:
                    yield event
        answer = _answer(calls, self.state)
        ending = _ending(answer, alone=not others)
        made = iter(results)
        told = [CallResult(call, *ending) if call.name == FINAL_ANSWER else next(made) for call in calls]
        outcome = _outcome(reply, told, answer if not others else None)
        yield Observation(outcome.observations or "", "", outcome.error.message if outcome.error else None)
        yield outcome

    async def _reopen(self, recording: Recording | None) -> Rebuilding:
        self.state |= recording.state if recording else {}
        return Rebuilding()

    def _named_values(self) -> Mapping[str, Any]:
        return {name: value for name, value in self.state.items() if isinstance(value, Media)}

    async def _carried_out(
        self, calls: Sequence[ChatToolCall], interruption: Interruption
    ) -> AsyncGenerator[ToolCall | ToolOutcome | CallResult, None]:
        use_tape(self._recorder.tape if self._recorder else None)
        async with aclosing(carried_out(calls, self._callables, interruption)) as events:
            async for event in events:
                yield event

    def copy_for_call(self) -> Self:
        """Another agent of the same settings, with a memory and values of its own."""
        twin = super().copy_for_call()
        twin.state = {}
        twin._callables = replace(self._callables, state=twin.state, foreign=Foreign())
        return twin

    async def aclose(self) -> None:
        """Nothing: it owns nothing."""


def _sendable(call: ChatToolCall) -> ChatToolCall:
    """With a name that endpoints take in a history: a model may have made up one that they refuse ever after."""
    name = call.name if _NAME.fullmatch(call.name) else _NOT_IN_NAMES.sub("_", call.name)[:MAX_NAME] or "_"
    return replace(call, name=name, arguments=_read(call.arguments))


def _read(arguments: Any) -> Any:
    """Of a text that is an object as models write them (single quotes, a comma too many), that object."""
    if not isinstance(arguments, str):
        return arguments
    text = arguments.strip()
    try:
        value, end = read_value(text) if text.startswith("{") else (None, 0)
    except NotJson:
        return arguments
    return value if isinstance(value, dict) and end == len(text) else arguments


def _answer(calls: Sequence[ChatToolCall], state: Mapping[str, Any]) -> FinalAnswer | None:
    """What ``final_answer`` was called with, if it was called rightly. A model may leave out the argument's name."""
    given = next((call.arguments for call in calls if call.name == FINAL_ANSWER), None)
    match given:
        case {"answer": answer}:
            return FinalAnswer(stands_for(answer, state))
        case None | "" | dict():  # of other names
            return None
        case str() if given.lstrip()[:1] in ("{", "["):  # JSON that was cut off
            return None
        case _:
            return FinalAnswer(stands_for(given, state))


def _ending(answer: FinalAnswer | None, *, alone: bool) -> tuple[str, bool]:
    """What a call of ``final_answer`` is told, and whether it failed."""
    if not alone:
        return "Not taken: look at what the other calls gave first, then call final_answer alone.", True
    return ("The answer was given.", False) if answer else ("Give the answer: final_answer(answer=…).", True)


def _outcome(reply: ModelReply, results: Sequence[CallResult], answer: FinalAnswer | None) -> Outcome:
    failures = [result.text for result in results if result.failed]
    return Outcome(
        reply.text,
        observations="\n".join(f"Result of {result.name}:\n{result.text}" for result in results),
        error=StepError("tool", "\n".join(failures)) if failures else None,
        final_answer=answer,
        tool_calls=tuple(results),
        native_calls=bool(reply.tool_calls),
    )
