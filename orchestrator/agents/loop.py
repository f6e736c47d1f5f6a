"""The step loop: read it top to bottom.

    memory -> messages -> model -> reply -> action -> outcome -> memory, until an answer or the end of the steps

What an action is, and how it is carried out, is the subclass's part (``_act``). Nothing here does I/O by itself.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

from orchestrator.agents.callbacks import (
    CallbackRegistry,
    FinalAnswerCheck,
    StepCallbacks,
    checked_checks,
    failed_check,
)
from orchestrator.agents.compaction import Compaction, ShortenOldest, checked_compaction, make_room
from orchestrator.agents.equipment import Equipment
from orchestrator.agents.given import Given, checked_max_steps
from orchestrator.agents.interruption import Interruption
from orchestrator.agents.logger import AgentLogger, checked_logger
from orchestrator.agents.managed import called
from orchestrator.agents.memory import AgentMemory, merged
from orchestrator.agents.observation import MAX_ERROR_LENGTH, shown
from orchestrator.agents.outcome import Outcome, end_of_run
from orchestrator.agents.planning import END_OF_PLAN, Schedule, planned, planning_question
from orchestrator.agents.prompts import ToolText, overlaid_templates, render
from orchestrator.agents.record import Recorder
from orchestrator.agents.repetition import on_repetition
from orchestrator.agents.replies import Question, answers, checked_model
from orchestrator.agents.resuming import Resuming
from orchestrator.agents.run import AgentEvent, Compacted, StepStarted
from orchestrator.agents.settings import check_kinds, checked_name
from orchestrator.agents.shareable import Shareable
from orchestrator.agents.showing import Showable
from orchestrator.agents.steps import (
    ActionStep,
    FinalAnswerStep,
    KeptStep,
    NoteStep,
    PlanningStep,
    StepError,
    Stopwatch,
    TaskStep,
)
from orchestrator.agents.tokens import TokenMeter
from orchestrator.errors import AgentInterrupted
from orchestrator.events import FinalAnswer
from orchestrator.models import ChatMessage, Model, ModelReply
from orchestrator.tools import Tool

Step = TypeVar("Step", bound=KeptStep)
Finished = TypeVar("Finished", bound=KeptStep | FinalAnswerStep)
_SHORTEN_OLDEST = ShortenOldest()


class MultiStepAgent(Resuming, Showable, Shareable):
    """Works on a task in steps until it has an answer.

    ``run`` blocks, ``arun`` is awaited, ``astream`` yields typed events; one run at a time. With ``reset=False`` a run
    continues the conversation of the one before. Close it, or use it as a context manager: it may own a sandbox.
    Names and meanings are those of smolagents.

    Args:
        tools: ``Tool`` objects, or plain functions that follow the rules of ``@tool`` (type hints, a docstring that
            describes each argument).
        model: continues the conversation; see ``Model``.
        prompt_templates: in the place of the default ones; a mapping, or the name of a YAML file. See prompts.py.
        instructions: a text of your own for the end of the system prompt.
        max_steps: steps of one run; after them the model is asked once for its answer.
        add_base_tools: adds ``web_search`` and ``visit_webpage``, which run on this host; not ``user_input``.
        verbosity_level: what is shown on standard error; see ``LogLevel``. Without a ``logger`` only.
        managed_agents: a team: agents with a name and a description, which this one calls like tools.
        step_callbacks: a list of callables for each ``ActionStep``, or a dict from type of step to such. Called as
            ``f(step)`` or ``f(step, agent=agent)`` once the step is in memory; one that raises ends the run.
        planning_interval: the model writes a plan before the first step, and again every so many steps.
        name: what the agent is called, a Python identifier.
        description: what it is good at.
        provide_run_summary: as a member of a team it reports its work along with its answer.
        final_answer_checks: called as ``f(answer, memory)`` or ``f(answer, memory, agent=agent)``; if one gives a false
            value or raises, the answer is not taken, the model is told, and the run goes on.
        return_full_result: ``run`` gives a ``RunResult`` instead of the answer alone.
        logger: shows what happens, in the place of the default one.
        stream_outputs: events include the pieces of the model's replies.
        compaction: what shortens a conversation that has become too long, such as ``SummariseOldest()`` or a function
            of your own; default ``ShortenOldest()``, which begins at about 100,000 tokens. None for nothing.
        record: a file that each run is added to as it happens, so that ``resume()`` can go on with it after a crash.
            Copies of the agent (branches, calls of a member of a team) are not recorded.

    Attributes:
        memory: everything that happened; kept when a run raises, so that it can go on with ``reset=False``.
        prompt_templates: those in use; a change counts from the next run on.
        max_steps, planning_interval, instructions, final_answer_checks: as it was made; so do these.

    Raises:
        AgentError, ToolError: the arguments do not fit together; the message says what to change.
    """

    _prompts: str  # the kind of its default templates

    def __init__(
        self,
        tools: Sequence[Tool | Callable[..., Any]],
        model: Model,
        prompt_templates: Mapping[str, Any] | str | Path | None = None,
        *,
        instructions: str | None = None,
        max_steps: int = 20,
        add_base_tools: bool = False,
        verbosity_level: int = 1,
        managed_agents: Sequence[MultiStepAgent] | None = None,
        step_callbacks: StepCallbacks | None = None,
        planning_interval: int | None = None,
        name: str | None = None,
        description: str | None = None,
        provide_run_summary: bool = False,
        final_answer_checks: Sequence[FinalAnswerCheck] | None = None,
        return_full_result: bool = False,
        logger: AgentLogger | None = None,
        stream_outputs: bool = False,
        compaction: Compaction | None = _SHORTEN_OLDEST,
        record: str | Path | None = None,
    ) -> None:
        check_kinds(name=name, description=description, instructions=instructions, record=record)
        check_kinds(add_base_tools=add_base_tools, provide_run_summary=provide_run_summary)
        check_kinds(return_full_result=return_full_result, stream_outputs=stream_outputs)
        self.model = checked_model(model, stream_outputs)
        self.name = checked_name(name)
        self.description = description
        self.instructions = instructions
        self.equipment = Equipment.of(tools, managed_agents or (), add_base_tools, name)
        self.prompt_templates = overlaid_templates(prompt_templates, self._prompts)
        self.max_steps = checked_max_steps(max_steps)
        self.planning_interval = Schedule(planning_interval).interval
        self.provide_run_summary = provide_run_summary
        self.return_full_result = return_full_result
        self.stream_outputs = stream_outputs
        self.compaction = checked_compaction(compaction)
        self.logger = checked_logger(logger) or AgentLogger(verbosity_level)
        self.step_callbacks = CallbackRegistry(step_callbacks)
        self.final_answer_checks = checked_checks(final_answer_checks)
        self._meter = TokenMeter()
        self._recorder = None if record is None else Recorder(Path(record))
        self.memory = AgentMemory(self.system_prompt)

    # The loop.

    async def astream(
        self,
        task: str,
        *,
        reset: bool = True,
        images: Sequence[Any] | None = None,
        additional_args: Mapping[str, Any] | None = None,
        max_steps: int | None = None,
    ) -> AsyncGenerator[AgentEvent, None]:
        """Works on ``task`` and yields what happens as it happens; the last event is a ``FinalAnswerStep``.

        Leaving it early (``aclosing``, a cancelled task) stops the model call or the execution under way. Arguments and
        errors as in ``run``.
        """
        check_kinds(reset=reset)
        limit = self.max_steps if max_steps is None else checked_max_steps(max_steps)
        given = Given.of(task, images, additional_args)
        async with aclosing(self._shown(self._run(given, limit, reset))) as events:
            async for event in events:
                yield event

    async def _run(self, given: Given, limit: int, reset: bool) -> AsyncGenerator[AgentEvent, None]:
        with self._one_run() as interruption:
            if self._unbuilt is not None:  # what was resumed had ended
                async with aclosing(self._made_again(self._unbuilt, False, interruption)) as events:
                    async for event in events:
                        yield event
            await interruption.guard(self._open(given))
            self.memory.set_system_prompt(self.system_prompt)
            if reset:
                self.memory.reset()
            if self._recorder:
                await self._recorder.begin_run(given, limit, reset, self.memory)
            yield await self._remember(TaskStep(given.text(self._shown_type), given.images))
            async with aclosing(self._steps(given, limit, interruption)) as events:
                async for event in events:
                    yield event

    async def _steps(
        self, given: Given, limit: int, interruption: Interruption, first: int = 1
    ) -> AsyncGenerator[AgentEvent, None]:
        for number in range(first, limit + 2):
            interruption.check()
            is_left = number <= limit
            turn = (
                self._turn(given, number, limit, interruption) if is_left else self._last(given, number, interruption)
            )
            async with aclosing(turn) as events:
                async for event in events:
                    yield event
                    if isinstance(event, ActionStep) and (end := end_of_run(event, limit)):
                        yield await self._finish(end)
                        return

    async def _turn(
        self, given: Given, number: int, limit: int, interruption: Interruption
    ) -> AsyncGenerator[AgentEvent, None]:
        for note in await self._news():
            yield await self._remember(note)
        if compacted := await self._make_room(interruption):
            yield compacted
        if Schedule(self.planning_interval).is_due(number) and not planned(self.memory.steps):
            async with aclosing(self._plan(given, number, limit, interruption)) as events:
                async for event in events:
                    yield event
        yield StepStarted(number, limit)
        async with aclosing(self._step(number, interruption)) as events:
            async for event in events:
                yield event

    async def _plan(
        self, given: Given, number: int, limit: int, interruption: Interruption
    ) -> AsyncGenerator[AgentEvent, None]:
        """The plan, already in memory, is the last event."""
        watch = Stopwatch()
        question = planning_question(
            self.prompt_templates["planning"],
            self.write_memory_to_messages(),
            is_first=number == 1,
            task=given.task,
            remaining_steps=limit - number + 1,
            **self._tool_texts(),
        )
        async with aclosing(self._ask(question, interruption)) as events:
            async for event in events:
                if isinstance(event, ModelReply):
                    plan = event.text.removesuffix(END_OF_PLAN).strip()
                    yield await self._remember(PlanningStep(plan, watch.timing(), event.token_usage))
                else:
                    yield event

    async def _step(self, number: int, interruption: Interruption) -> AsyncGenerator[AgentEvent, None]:
        """Asks the model and carries out what it says. The ``ActionStep``, already in memory, is the last event."""
        watch = Stopwatch()
        async with aclosing(self._ask(self._question(), interruption)) as events:
            async for event in events:
                if isinstance(event, ModelReply):
                    reply = event
                else:
                    yield event
        async with aclosing(self._act(reply, interruption)) as acts:
            async for act in acts:
                if isinstance(act, Outcome):
                    outcome = self._pointed_out(await self._checked(act, interruption))
                    yield await self._remember(outcome.step(number, watch, reply.token_usage))
                else:
                    yield act

    async def _ask(self, question: Question, interruption: Interruption) -> AsyncGenerator[Any, None]:
        async with aclosing(answers(self.model, question, interruption, stream=self.stream_outputs)) as events:
            async for event in events:
                if isinstance(event, ModelReply):
                    self._meter.learn(question.messages, event.token_usage)
                yield event

    async def _make_room(self, interruption: Interruption) -> Compacted | None:
        """Shows the model less of a conversation that is too long."""

        async def ask(messages: Sequence[ChatMessage]) -> ModelReply:
            async with aclosing(answers(self.model, Question(messages), interruption, stream=False)) as events:
                return [event async for event in events if isinstance(event, ModelReply)][-1]

        if self.compaction is None:
            return None
        compacted = await interruption.guard(make_room(self.compaction, self.memory, self._meter, ask))
        if compacted and self._recorder:
            await self._recorder.view(self.memory)
        return compacted

    async def _checked(self, outcome: Outcome, interruption: Interruption) -> Outcome:
        """The outcome; its final answer is turned into an error if a check does not accept it.

        So it is if the run is interrupted meanwhile: what the action did is remembered before that ends the run.
        """
        if outcome.final_answer is None:
            return outcome
        checking = failed_check(self.final_answer_checks, outcome.final_answer.value, self.memory, self)
        try:
            problem = await interruption.guard(checking)
        except AgentInterrupted:
            problem = "The run was interrupted before the final answer was checked."
        if problem is None:
            return outcome
        return replace(
            outcome, final_answer=None, error=StepError("final_answer_check", shown(problem, MAX_ERROR_LENGTH))
        )

    def _pointed_out(self, outcome: Outcome) -> Outcome:
        """With a remark if the model makes the same mistake again and again."""
        hint = on_repetition(self.memory.steps, outcome.error)
        return replace(outcome, remarks="\n".join(filter(None, (outcome.remarks, hint)))) if hint else outcome

    async def _last(self, given: Given, number: int, interruption: Interruption) -> AsyncGenerator[AgentEvent, None]:
        """The steps are used up: what the model says when asked once, in plain text. It has to pass the checks, too."""
        if compacted := await self._make_room(interruption):
            yield compacted
        watch = Stopwatch()
        parts = self.prompt_templates["final_answer"]
        asked = [
            ChatMessage("user", render(parts[part], task=given.task)) for part in ("pre_messages", "post_messages")
        ]
        question = Question(merged([*self.write_memory_to_messages(), *asked]))
        async with aclosing(self._ask(question, interruption)) as events:
            async for event in events:
                if isinstance(event, ModelReply):
                    reply = event
                else:
                    yield event
        answer = reply.text.strip()
        outcome = Outcome(reply.text, action_output=answer, final_answer=FinalAnswer(answer))
        checked = await self._checked(outcome, interruption)
        interruption.check()  # nothing was done that had to be remembered
        yield await self._remember(replace(checked.step(number, watch, reply.token_usage), is_final_answer=False))

    async def _remember(self, step: Step) -> Step:
        self.memory.append(step)
        try:
            return await self._finish(step)
        finally:  # it has happened, whatever they say; and they may have added a picture to it
            if self._recorder:
                await self._recorder.step(step, self._named_values())

    async def _finish(self, step: Finished) -> Finished:
        assert self._interruption  # a run is under way
        await self._interruption.guard(self.step_callbacks(step, self))
        return step

    # What a kind of agent adds.

    @abstractmethod
    async def _open(self, given: Given) -> None:
        """Makes ready what the run needs, before the model is asked: what cannot start should cost no tokens."""

    async def _news(self) -> Sequence[NoteStep]:
        """What the model has to be told before it is asked, as it could not know it."""
        return ()

    @abstractmethod
    def _question(self) -> Question:
        """What the model is asked for the next step."""

    @abstractmethod
    def _act(self, reply: ModelReply, interruption: Interruption) -> AsyncGenerator[AgentEvent | Outcome, None]:
        """Carries out the model's reply: yields what happens, and one ``Outcome`` in the end."""

    def _prompt_variables(self) -> dict[str, Any]:
        """What the system prompt is rendered with besides tools, team, name, description and instructions."""
        return {}

    # Conversation and team.

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The tools by name. They are those that the agent was made with: make another agent for others."""
        return MappingProxyType(self.equipment.tools)

    @property
    def managed_agents(self) -> dict[str, MultiStepAgent]:
        """The team by name."""
        return {name: member.agent for name, member in self.equipment.team.items()}

    @property
    def system_prompt(self) -> str:
        """The first message of a conversation, made of the present templates."""
        return render(
            self.prompt_templates["system_prompt"],
            custom_instructions=self.instructions,
            name=self.name,
            description=self.description,
            **self._tool_texts(),
            **self._prompt_variables(),
        )

    def _tool_texts(self) -> dict[str, dict[str, ToolText]]:
        groups: dict[str, Mapping[str, Tool]] = {"tools": self.tools, "managed_agents": self.equipment.team}
        return {group: {name: ToolText.of(tool) for name, tool in tools.items()} for group, tools in groups.items()}

    def write_memory_to_messages(self) -> list[ChatMessage]:
        """The conversation so far, as the model is shown it."""
        return self.memory.to_messages()

    def __call__(self, task: str, additional_args: Mapping[str, Any] | None = None) -> Any:
        """One run as a member of a team is given it: what its manager would get. Needs a name and a description."""
        return called(self, task, additional_args)

    @property
    def shares_sandbox(self) -> bool:
        """Whether copies of this agent would work in the same sandbox."""
        return False

    def copy_for_call(self) -> Self:
        """Another agent of the same settings, with a memory of its own: for a run beside this one's."""
        return self._copy(AgentMemory(self.system_prompt))

    def _copy(self, memory: AgentMemory) -> Self:
        """With all that was set after the making, and that a subclass has; its runs are not recorded."""
        twin = copy.copy(self)
        twin.equipment, twin.memory = self.equipment.copy(), memory
        twin._interruption = twin._recorder = twin._unbuilt = None
        return twin
