"""``CodeAgent``: its actions are Python code, run in a sandbox."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, Literal, Self

from orchestrator.agents.branching import Best, Contest, Judge, best_of
from orchestrator.agents.callbacks import FinalAnswerCheck, StepCallbacks
from orchestrator.agents.interruption import Interruption
from orchestrator.agents.loop import MultiStepAgent, Outcome
from orchestrator.agents.memory import StepError
from orchestrator.agents.observation import DEFAULT_MAX_PRINT_OUTPUTS_LENGTH, observe
from orchestrator.agents.on_error import OnError, Settled, checked_on_error, is_undoable, undone
from orchestrator.agents.parsing import CodeAction, CodeTags, FormatError, extract_code
from orchestrator.agents.prompts import code_agent_prompt
from orchestrator.agents.run import AgentEvent
from orchestrator.agents.workplace import BorrowedWorkplace, OwnWorkplace, SandboxSettings, Workplace
from orchestrator.errors import AgentError, CheckpointError, SandboxError
from orchestrator.events import ExecutionEvent, Finished
from orchestrator.models import Model
from orchestrator.policy import Approve, import_rules
from orchestrator.sandbox import AsyncSandbox, Portal, Sandbox
from orchestrator.tools import Tool, as_tool


class CodeAgent(MultiStepAgent):
    """An agent that acts by writing Python code, which runs in a locked-down container.

    Names and meanings are those of smolagents' ``CodeAgent``. The agent owns its sandbox: made at the first run, kept
    over runs, so variables last from one run to the next, also with ``reset=True`` (which forgets the conversation
    only). It is closed by ``close()``, by ``with``, and at the latest when the process ends.

    Args:
        tools: host functions that the code may call: ``Tool`` objects, or plain functions that follow the rules of
            ``@tool`` (type hints, a docstring that describes each argument).
        model: writes the code.
        additional_authorized_imports: modules that the code may import besides the default ones; ``"pkg.*"`` for a
            package with its submodules, ``"*"`` for everything installed.
        instructions: a text of your own for the end of the system prompt.
        code_block_tags: what the model puts around code: a pair of texts, or ``"markdown"`` for ```` ```python ````
            fences; default ``("<code>", "</code>")``. Fences are understood in any case.
        max_print_outputs_length: characters of printed output that the model is shown per step; default 50,000.
        sandbox: a ``Sandbox`` or ``AsyncSandbox`` to work in, made with ``final_answer=True`` and with the tools and
            imports the code needs; it is not closed. Or ``SandboxSettings`` for the agent's own.
        on_error: what an action that failed leaves behind. ``"keep"``, the default: what it did until then, as in a
            notebook. ``"rollback"``: nothing; variables and files go back to before it, and the model is told so, or
            what of it was not possible. An answer that a check refuses is no failure of the action.
        approve: asked before each action that is run and before each tool call of its code; see ``Sandbox``. A refused
            action is told to the model, and the run goes on. Not with a borrowed sandbox, which is made with its own.
        max_steps, step_callbacks, final_answer_checks, return_full_result, name, description: see ``MultiStepAgent``.

    Raises:
        ToolError: a tool's definition is wrong.
        ConfigError: an import is not a module's name.
        AgentError: the arguments do not fit together.
    """

    def __init__(
        self,
        tools: Sequence[Tool | Callable[..., Any]],
        model: Model,
        *,
        additional_authorized_imports: Sequence[str] | None = None,
        instructions: str | None = None,
        max_steps: int = 20,
        step_callbacks: StepCallbacks | None = None,
        final_answer_checks: Sequence[FinalAnswerCheck] | None = None,
        code_block_tags: tuple[str, str] | Literal["markdown"] | None = None,
        max_print_outputs_length: int | None = None,
        return_full_result: bool = False,
        sandbox: AsyncSandbox | Sandbox | SandboxSettings | None = None,
        on_error: OnError = "keep",
        approve: Approve | None = None,
        name: str | None = None,
        description: str | None = None,
    ) -> None:
        self.tools = _by_name(tools)
        self.authorized_imports = import_rules(additional_authorized_imports or ())
        self._tags = CodeTags.of(code_block_tags)
        self._print_limit = _checked_limit(max_print_outputs_length)
        self._on_error = checked_on_error(on_error)
        self._workplace = self._make_workplace(sandbox, additional_authorized_imports, approve)
        super().__init__(
            model,
            system_prompt=code_agent_prompt(
                tools=list(self.tools.values()),
                imports=self.authorized_imports,
                tags=self._tags,
                name=name,
                description=description,
                instructions=instructions,
            ),
            max_steps=max_steps,
            step_callbacks=step_callbacks,
            final_answer_checks=final_answer_checks,
            return_full_result=return_full_result,
            name=name,
            description=description,
        )

    def _make_workplace(
        self,
        sandbox: AsyncSandbox | Sandbox | SandboxSettings | None,
        imports: Sequence[str] | None,
        approve: Approve | None,
    ) -> Workplace:
        if isinstance(sandbox, AsyncSandbox | Sandbox):
            if approve:
                raise AgentError("approve: give it to the sandbox")
            if imports:
                raise AgentError("additional_authorized_imports: give them to the sandbox, as its authorized_imports")
            lent = sandbox if isinstance(sandbox, AsyncSandbox) else sandbox.asynchronous
            workplace = BorrowedWorkplace(lent, frozenset(self.tools))
            self.authorized_imports = workplace.authorized_imports
            return workplace
        settings = sandbox or SandboxSettings()
        if approve:
            settings = replace(settings, approve=approve)
        tools, rules = tuple(self.tools.values()), self.authorized_imports
        return OwnWorkplace(lambda: settings.make(tools, rules))  # without self: see OwnWorkplace on garbage

    def _stop_sequences(self) -> Sequence[str]:
        closing = self._tags.stop_sequence
        return ("\nObservation:",) if closing is None else ("\nObservation:", closing)

    async def _open(self) -> None:
        await self._workplace.open()

    async def _act(self, reply: str, interruption: Interruption) -> AsyncGenerator[AgentEvent | Outcome, None]:
        match extract_code(reply, self._tags):
            case FormatError(message):
                yield Outcome(reply, error=StepError("format", message))
            case CodeAction() as action:
                yield action
                async with aclosing(self._execute(action.code, interruption)) as events:
                    async for event in events:
                        if isinstance(event, Finished):
                            settled = await self._settled(event)
                            yield Finished(settled.execution)
                            yield self._outcome(reply, action, settled)
                        else:
                            yield event

    async def _execute(self, code: str, interruption: Interruption) -> AsyncGenerator[ExecutionEvent, None]:
        """The events of running ``code``.

        ``Finished`` is held back until the sandbox is free again: who is told may want to use it.
        """
        end: list[Finished] = []
        async with (
            self._sandbox() as sandbox,
            interruption.passed_on(sandbox.interrupt),
            aclosing(sandbox.stream(code)) as events,
        ):
            async for event in events:
                if isinstance(event, Finished):
                    end.append(event)
                else:
                    yield event
        for event in end:
            yield event

    @asynccontextmanager
    async def _sandbox(self) -> AsyncIterator[AsyncSandbox]:
        """The sandbox, started. One that fails inside is thrown away: the next run gets another."""
        try:
            yield await self._workplace.open()
        except CheckpointError:  # the sandbox is sound, it only lacks the state that it was asked for
            raise
        except SandboxError:
            await self._workplace.discard()
            raise

    async def _settled(self, event: Finished) -> Settled:
        """With the state that is wanted after a failure, before anybody hears of it and uses the sandbox again."""
        if self._on_error == "keep" or not is_undoable(event.execution):
            return Settled(event.execution)
        async with self._sandbox() as sandbox:
            return await undone(sandbox, event.execution)

    def _outcome(self, reply: str, action: CodeAction, settled: Settled) -> Outcome:
        """A final answer counts only if the code that gave it ran to its end: what failed is tried again."""
        execution = settled.execution
        seen = observe(execution, self._print_limit, not_undone=settled.not_undone)
        return Outcome(
            # With the closing that was cut off: the model should see its past replies in the form it is asked for.
            model_output=f"{reply.rstrip()}\n{self._tags.closing}" if action.cut else reply,
            code_action=action.code,
            observations=seen.text,
            remarks=seen.remarks,
            error=StepError("execution", seen.error) if seen.error is not None else None,
            execution=execution,
            action_output=execution.value,
            final_answer=execution.final_answer if execution.ok else None,
        )

    # Branches.

    async def abranch(self) -> Self:
        """``branch()``, awaited."""
        with self._one_run() as interruption:
            return await self._branch(interruption)

    def branch(self) -> Self:
        """Another agent that goes on from here, in a branch of this one's sandbox; neither sees what the other does.

        It has the same settings (also the very same tools, model, callbacks and checks) and the memory so far. The
        caller closes it. The branch lives in this agent's container: when the sandbox of this agent is closed, by
        ``close()`` or by the owner of a borrowed one, the branch has ended too. Tools, callbacks and checks should bear
        to be called for several agents at the same time. Blocks; a coroutine awaits ``abranch``.

        Raises:
            AgentError: this agent is at work, or closed.
            AgentInterrupted: ``interrupt()`` was called.
            CheckpointError: the present state cannot be copied now, for example as the code left threads running.
            SandboxError, EngineError: the sandbox failed, or cannot be started.
        """
        return Portal.run(self.abranch())

    async def _branch(self, interruption: Interruption) -> Self:
        forked: list[OwnWorkplace] = []

        async def fork() -> None:
            async with self._sandbox() as sandbox:
                forked.append(OwnWorkplace.of_branch(await sandbox.fork(), self._workplace))

        try:
            await interruption.guard(fork())
        except BaseException:  # cancelled just after it was forked, say
            for workplace in forked:
                await workplace.close()
            raise
        return self._twin(forked[0])

    def _twin(self, workplace: OwnWorkplace) -> Self:
        """A copy, so that what was set after the making and what a subclass has are the same, too."""
        twin = copy.copy(self)
        twin.tools = dict(self.tools)
        twin.memory = self.memory.copy()
        twin._workplace = workplace
        twin._interruption = None
        return twin

    async def abest_of(
        self, n: int, task: str, judge: Judge, *, max_steps: int | None = None, reset: bool = False
    ) -> Best[Self]:
        """``best_of()``, awaited. A cancelled one stops the branches and closes them."""
        contest = Contest(n, task, judge, max_steps, reset)
        with self._one_run() as interruption:
            return await best_of(lambda: self._branch(interruption), contest, interruption)

    def best_of(
        self, n: int, task: str, judge: Judge, *, max_steps: int | None = None, reset: bool = False
    ) -> Best[Self]:
        """Works on ``task`` in ``n`` branches at the same time, and gives the one that ``judge`` likes best.

        This agent stays as it is; ``Best.agent`` goes on from the winner's state. The caller closes it, and this agent
        only after it (see ``branch``). The other branches are closed; in any failure all are. The branches share this
        agent's model, tools, callbacks and checks, which are called for several of them at the same time.
        ``interrupt()`` stops all. Blocks; a coroutine awaits ``abest_of``.

        Args:
            n: how many branches, 1 to 16.
            task: what to do, in words.
            judge: called as ``judge(result)`` with the ``RunResult`` of each branch that came to one, be it that its
                steps were used up; sync (in a worker thread) or async, one after the other. It gives a number: the
                highest wins, the first of equals.
            max_steps: for each branch instead of the agent's own.
            reset: the branches forget the conversation so far. Variables stay either way.

        Raises:
            AgentError: an argument is out of range; this agent is at work, or closed; the judge gave no number; or no
                branch came to a result, and the message says why.
            AgentInterrupted: ``interrupt()`` was called.
            CheckpointError: a branch cannot be made of the present state, or there is no room for as many.
            SandboxError, EngineError: the sandbox failed before the branches were made, or cannot be started.
            Exception: whatever ``judge`` raises.
        """
        return Portal.run(self.abest_of(n, task, judge, max_steps=max_steps, reset=reset))

    # Closing.

    async def aclose(self) -> None:
        """Closes the agent's own sandbox for good; a borrowed one stays as it is. Idempotent."""
        await self._workplace.close()

    def close(self) -> None:
        """``aclose()``, blocking.

        Raises:
            AgentError: called on the event loop that would have to do the work.
        """
        self._workplace.check_blocking()
        super().close()


def _by_name(tools: Sequence[Tool | Callable[..., Any]]) -> dict[str, Tool]:
    by_name: dict[str, Tool] = {}
    for candidate in tools:
        made = as_tool(candidate)
        if made.name in by_name:
            raise AgentError(f"two tools are named {made.name!r}; the code could call only one of them")
        by_name[made.name] = made
    return by_name


def _checked_limit(limit: int | None) -> int:
    if limit is None:
        return DEFAULT_MAX_PRINT_OUTPUTS_LENGTH
    if limit < 1:
        raise AgentError(f"max_print_outputs_length is {limit}; it must be at least 1")
    return limit
