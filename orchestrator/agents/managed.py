"""A member of a team: an agent that its manager calls like a tool.

Each call is a run of its own, in a copy of the member with a memory and a sandbox of its own, so that calls may run at
the same time. The member's ``memory`` is that of its last call.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from orchestrator.agents.logger import AgentLogger, LogLevel
from orchestrator.agents.observation import truncate
from orchestrator.agents.overheard import listener
from orchestrator.agents.prompts import render
from orchestrator.agents.steps import ActionStep, FinalAnswerStep, TaskStep
from orchestrator.errors import AgentError
from orchestrator.sandbox import Portal
from orchestrator.sanitise import in_words
from orchestrator.tools import Tool

if TYPE_CHECKING:
    from orchestrator.agents.loop import MultiStepAgent

MAX_REPORT = 500_000  # characters of an answer in a report; a prompt can hold twice that
MAX_SUMMARY = 20_000  # characters of one step in a summary of work, as in smolagents


_INPUTS: Mapping[str, Mapping[str, Any]] = {
    "task": {"type": "string", "description": "what to do, with everything that one needs to know for it"},
    "additional_args": {
        "type": "object",
        "description": "values that the member gets as variables: name -> value",
        "nullable": True,
    },
}


class TeamMember(Tool):
    """``agent`` as a tool of its manager: ``name(task="…", additional_args={…})``.

    It gives the member's answer: text as the report that the prompts make of it, any other value as it is. With the
    member's ``provide_run_summary`` it is always the report, and the summary of its work.

    Raises:
        AgentError: the agent lacks a name or a description.
    """

    stops_clock = True
    output_type = "any"

    def __init__(self, agent: MultiStepAgent) -> None:
        name, description = getattr(agent, "name", None), getattr(agent, "description", None)
        if not name or not description:
            raise AgentError("managed_agents: each needs a name, which its manager calls, and a description")
        self.agent = agent
        self.name, self.description = name, description
        self.inputs = _INPUTS

    async def forward(self, task: str, additional_args: dict[str, Any] | None = None) -> Any:
        """One run of the member."""
        member = self.agent.copy_for_call()
        ear = listener()
        if ear:
            member.logger = AgentLogger(LogLevel.OFF)  # the manager shows what it hears
        full = render(member.prompt_templates["managed_agent"]["task"], name=self.name, task=task)
        try:
            async with aclosing(member.astream(full, additional_args=additional_args)) as events:
                async for event in events:
                    if ear:
                        await ear.hear(self.name, event)
                    if isinstance(event, FinalAnswerStep):
                        answer = event.output
        finally:
            if not self.agent.is_at_work:
                self.agent.memory = member.memory
            await member.aclose()
        return _report(member, answer)


def _report(member: MultiStepAgent, answer: Any) -> Any:
    if not isinstance(answer, str) and not member.provide_run_summary:
        return answer
    report = render(member.prompt_templates["managed_agent"]["report"], name=member.name, final_answer=_cut(answer))
    return f"{report}\n{_summary(member)}" if member.provide_run_summary else report


def _cut(answer: Any) -> Any:
    """The answer; of one that is too long for a report, its text without the middle."""
    text = in_words(answer, str)
    return answer if len(text) <= MAX_REPORT else truncate(text, MAX_REPORT)


def _summary(member: MultiStepAgent) -> str:
    lines = ["<summary_of_work>"]
    for step in member.memory.steps:
        if isinstance(step, (TaskStep, ActionStep)):
            lines += [message.content[:MAX_SUMMARY] for message in step.to_messages()]
    return "\n---\n".join((*lines, "</summary_of_work>"))


def called(agent: MultiStepAgent, task: str, additional_args: Mapping[str, Any] | None) -> Any:
    """What a manager of ``agent`` would get. Blocks."""
    return Portal.run(TeamMember(agent).forward(task, None if additional_args is None else dict(additional_args)))
