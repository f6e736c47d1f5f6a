"""Runs of the service's agents, for an app: begun, followed, steered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.agents.run import RunEvent
from orchestrator.client.connection import AsyncConnection, new_key
from orchestrator.client.events import event_of, value_of
from orchestrator.client.sandbox_messages import KEY_METADATA
from orchestrator.errors import AgentError, AgentInterrupted
from orchestrator.events import RunState
from orchestrator.media import AgentImage
from orchestrator.portal import Portal
from orchestrator.sandbox.values import encode_variables
from orchestrator.tools import as_tool


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody has to decide: a tool call, or an execution if ``tool`` is empty.

    Attributes:
        id: for ``runs.decide``.
        asked: seconds since the epoch.
        deadline: the same; then it counts as refused.
        tool: that is to be called.
        arguments: of the call; of an execution, the variables that it is given.
        code: that is to be run.
        agent: whose code or model wants it.
        reason: why somebody is asked.
    """

    id: str
    asked: float
    deadline: float
    tool: str = ""
    arguments: Mapping[str, Any] | None = None
    code: str = ""
    agent: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it was when it was asked for.

    Attributes:
        id: tells it apart from every other.
        agent: of the service's settings.
        task: what it was given.
        state: where it is.
        owner: the name of the token that began it; ``local`` for a user of the socket.
        created: seconds since the epoch; so are ``started`` and ``ended``, 0 where that has not come yet.
        steps: that have ended.
        events: the number of the last one.
        input_tokens: of all model calls, as far as the endpoints counted them; so are ``output_tokens``.
        error: what ended it, if that was no answer.
        answer: its final answer; None until then.
        can_resume: ``resume()`` would go on with it.
        sandbox: the id of the one that it works in; empty: none now.
        questions: that wait for a decision.
    """

    id: str
    agent: str
    task: str
    state: RunState
    owner: str
    created: float
    started: float
    ended: float
    steps: int
    events: int
    input_tokens: int
    output_tokens: int
    error: str
    answer: Any
    can_resume: bool
    sandbox: str = ""
    questions: tuple[Question, ...] = ()


def run_of(message: pb.Run) -> Run:
    """A run, of the message that it came as."""
    state = pb.Run.State.Name(message.state).removeprefix("STATE_").lower()
    return Run(
        id=message.id,
        agent=message.agent,
        task=message.task,
        state=RunState(state),
        owner=message.owner,
        created=message.created,
        started=message.started,
        ended=message.ended,
        steps=message.steps,
        events=message.events,
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        error=message.error,
        answer=_answer(message.answer),
        can_resume=message.can_resume,
        sandbox=message.sandbox,
        questions=tuple(_question(question) for question in message.questions),
    )


def _answer(data: bytes) -> Any:
    return getattr(event_of(data), "output", None) if data else None


def _question(message: pb.Question) -> Question:
    arguments = value_of(message.arguments) if message.arguments else None
    return Question(
        id=message.id,
        asked=message.asked,
        deadline=message.deadline,
        tool=message.tool,
        arguments=arguments,
        code=message.code,
        agent=message.agent,
        reason=message.reason,
    )


class AsyncRuns:
    """``client.runs``: what the service knows of runs, and what can be done about one."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def start(
        self,
        task: str,
        agent: str = "",
        *,
        tools: Sequence[Callable[..., Any]] = (),
        images: Sequence[Any] | None = None,
        additional_args: Mapping[str, Any] | None = None,
        max_steps: int | None = None,
        continues: str = "",
        key: str = "",
    ) -> Run:
        """Begins a run, which goes on whoever watches it.

        Args:
            task: what the agent is to do.
            agent: of the service's settings; empty: the default one.
            tools: functions of this app, called here, besides the agent's own; each as a ``Tool`` or by the rules of
                ``@tool``. They are served as long as this client is open.
            images: pictures for a model that sees, as of ``agent.run``.
            additional_args: values by name, as of ``agent.run``; each has to be one that can enter a sandbox.
            max_steps: in the place of the agent's own.
            continues: the id of a run that has ended with an answer: this one has its memory and its variables.
            key: of the app's choice. A second request with the same key gives the first one's run.

        Raises:
            NotFound: there is no such agent, or no such run to continue.
            AgentError, ConfigError, ToolError, ValueNotPortable: something of the arguments cannot be.
            Overloaded: too many wait already, or this token has used up what it may.
        """
        request = pb.StartRun(
            key=key or new_key(),
            agent=agent,
            task=task,
            max_steps=max_steps,
            additional_args=encode_variables(additional_args) if additional_args else b"",
            images=[pb.Image(mime=image.mime, data=image.data) for image in map(AgentImage.of, images or ())],
            continues=continues,
        )

        async def ask(specs: Sequence[pb.ToolSpec], host: str) -> pb.Run:
            request.MergeFrom(pb.StartRun(tools=specs, tool_host=host))
            begun: pb.Run = await self._connection.runs("Start", request)
            return begun

        return run_of(await self._connection.tools.begin([as_tool(tool) for tool in tools], ask))

    async def list(self, limit: int = 100, *, before: str = "", agent: str = "", search: str = "") -> list[Run]:
        """This token's runs, newest first; an administrator's are everybody's.

        Long tasks are cut here, and long answers and questions left out: ``get()`` has them.

        Args:
            limit: at most so many, and at most 1,000.
            before: the id of the last one that was listed.
            agent: only its runs.
            search: only those with this text, of at most 200 characters, in the first 2,000 of their task.
        """
        request = pb.ListRuns(limit=limit, before=before, agent=agent, search=search)
        return [run_of(run) for run in (await self._connection.runs("List", request)).runs]

    async def get(self, id: str) -> Run:
        """One run. Raises NotFound if there is none."""
        return run_of(await self._connection.runs("Get", pb.RunId(id=id)))

    async def interrupt(self, id: str) -> Run:
        """Has a run end as soon as it can, its memory kept."""
        return run_of(await self._connection.runs("Interrupt", pb.RunId(id=id)))

    async def resume(self, id: str, *, tools: Sequence[Callable[..., Any]] = ()) -> Run:
        """Goes on with a run that was interrupted or has failed; ``tools`` are the app's that it was begun with.

        Raises:
            AgentError: it cannot be gone on with.
        """

        async def ask(specs: Sequence[pb.ToolSpec], host: str) -> pb.Run:
            request = pb.ResumeRun(run=id, tools=specs, tool_host=host)
            gone_on: pb.Run = await self._connection.runs("Resume", request, metadata=((KEY_METADATA, new_key()),))
            return gone_on

        return run_of(await self._connection.tools.begin([as_tool(tool) for tool in tools], ask, run=id))

    async def decide(self, run: str, question: str, approved: bool, reason: str = "") -> None:
        """Answers a question of a run's. Raises NotFound if it no longer waits for an answer."""
        request = pb.Decision(run=run, question=question, approved=approved, reason=reason)
        await self._connection.runs("Decide", request)

    async def follow(self, id: str, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """The events of a run behind number ``after``, and those to come until it ends.

        None is lost or repeated, whatever becomes of the connection meanwhile, as long as it comes back within the
        client's patience. The end of the stream is the end of the run: ``get()`` says which.
        """
        events = self._connection.follow("Runs", "Follow", lambda seen: pb.FollowRun(run=id, after=seen), after)
        async with aclosing(events):
            async for event in events:
                yield event

    async def run(self, task: str, agent: str = "", **more: Any) -> AsyncGenerator[RunEvent, None]:
        """Begins a run and gives its events, as ``agent.astream(task)`` does. Arguments and errors as of ``start``.

        Leaving the stream early leaves the run at work; ``interrupt()`` ends it.

        Raises:
            AgentInterrupted: the run was interrupted.
            AgentError: it has failed; the message says with what.
        """
        begun = await self.start(task, agent, **more)
        async with aclosing(self.follow(begun.id)) as events:
            async for event in events:
                yield event
        ended = await self.get(begun.id)
        if ended.state is RunState.INTERRUPTED:
            raise AgentInterrupted(f"run {ended.id} was {ended.error or 'interrupted'}")
        if ended.state is not RunState.SUCCEEDED:
            raise AgentError(f"run {ended.id} has failed: {ended.error}")


class Runs:
    """``AsyncRuns`` for code that does not await: the same arguments and errors."""

    def __init__(self, runs: AsyncRuns) -> None:
        self._runs = runs

    def start(self, task: str, agent: str = "", **more: Any) -> Run:
        """See ``AsyncRuns.start``."""
        return Portal.run(self._runs.start(task, agent, **more))

    def list(self, limit: int = 100, **more: Any) -> list[Run]:
        """See ``AsyncRuns.list``."""
        return Portal.run(self._runs.list(limit, **more))

    def get(self, id: str) -> Run:
        """See ``AsyncRuns.get``."""
        return Portal.run(self._runs.get(id))

    def interrupt(self, id: str) -> Run:
        """See ``AsyncRuns.interrupt``."""
        return Portal.run(self._runs.interrupt(id))

    def resume(self, id: str, *, tools: Sequence[Callable[..., Any]] = ()) -> Run:
        """See ``AsyncRuns.resume``."""
        return Portal.run(self._runs.resume(id, tools=tools))

    def decide(self, run: str, question: str, approved: bool, reason: str = "") -> None:
        """See ``AsyncRuns.decide``."""
        Portal.run(self._runs.decide(run, question, approved, reason))

    def follow(self, id: str, after: int = 0) -> Iterator[RunEvent]:
        """See ``AsyncRuns.follow``."""
        return Portal.iterate(self._runs.follow(id, after))

    def run(self, task: str, agent: str = "", **more: Any) -> Iterator[RunEvent]:
        """See ``AsyncRuns.run``."""
        return Portal.iterate(self._runs.run(task, agent, **more))
