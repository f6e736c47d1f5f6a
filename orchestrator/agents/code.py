"""``CodeAgent``: its actions are Python code, run in a sandbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, Unpack

from orchestrator.agents.arrival import arriving_type
from orchestrator.agents.branching import Best, Contest, Judge, best_of
from orchestrator.agents.given import Given
from orchestrator.agents.interruption import Interruption
from orchestrator.agents.loop import MultiStepAgent
from orchestrator.agents.observation import DEFAULT_MAX_PRINT_OUTPUTS_LENGTH, Observation, observe
from orchestrator.agents.on_error import OnError, Settled, checked_on_error, is_undoable, undone
from orchestrator.agents.outcome import Outcome
from orchestrator.agents.overheard import with_team
from orchestrator.agents.parsing import CodeAction, CodeTags, FormatError, extract_code
from orchestrator.agents.rebuilding import Rebuilding, gone_back, rebuild
from orchestrator.agents.recording import Recording, run_again
from orchestrator.agents.replies import Question
from orchestrator.agents.run import AgentEvent
from orchestrator.agents.settings import AgentSettings, check_kinds, checked_settings
from orchestrator.agents.steps import NoteStep, StepError
from orchestrator.agents.structured import RESPONSE_FORMAT, structured_action
from orchestrator.agents.tape import Tape, use_tape
from orchestrator.agents.watching import Handed, told_of
from orchestrator.agents.workplace import BorrowedWorkplace, OwnWorkplace, SandboxSettings, workplace_of
from orchestrator.errors import AgentError, CheckpointError, SandboxError
from orchestrator.events import Execution, ExecutionEvent, Finished, State
from orchestrator.models import Model, ModelReply
from orchestrator.policy import Approve, import_rules
from orchestrator.sandbox import Portal, Sandbox
from orchestrator.sandbox.any_sandbox import AnySandbox
from orchestrator.sandbox.variables import encoded_variables
from orchestrator.tools import Tool

_BORROWED = "the sandbox is not the agent's own, so that nothing was run again in it"


class CodeAgent(MultiStepAgent):
    """An agent that acts by writing Python code, which runs in a locked-down container.

    Names and meanings are those of smolagents' ``CodeAgent``. The agent owns its sandbox: made at the first run, kept
    over runs, so variables last from one run to the next, also with ``reset=True`` (which forgets the conversation
    only). It is closed by ``close()``, by ``with``, and at the latest when the process ends.

    Args:
        tools, model, and all others: see ``MultiStepAgent``.
        additional_authorized_imports: modules that the code may import besides the default ones; ``"pkg.*"`` for a
            package with its submodules, ``"*"`` for everything installed.
        sandbox: a ``Sandbox`` or ``AsyncSandbox`` to work in, made with ``final_answer=True`` and with the tools and
            imports the code needs; it is not closed. Or ``SandboxSettings`` for the agent's own.
        max_print_outputs_length: characters of printed output that the model is shown per step; default 50,000.
        use_structured_outputs_internally: the model answers with JSON objects of a thought and code, and its endpoint
            is told so (``response_format``); small models make fewer mistakes that way.
        code_block_tags: what the model puts around code: a pair of texts, or ``"markdown"`` for ```` ```python ````
            fences; default ``("<code>", "</code>")``. Fences are understood in any case.
        on_error: what an action that failed leaves behind. ``"keep"``, the default: what it did until then, as in a
            notebook. ``"rollback"``: nothing; variables and files go back to before it, and the model is told so, or
            what of it was not possible. An answer that a check refuses is no failure of the action.
        approve: asked before each action that is run and before each tool call of its code; see ``Sandbox``. A refused
            action is told to the model, and the run goes on. Not with a borrowed sandbox, which is made with its own.

    Raises:
        ToolError: a tool's definition is wrong.
        ConfigError: an import is not a module's name.
        AgentError: the arguments do not fit together.
    """

    _prompts = "code_agent"

    def __init__(
        self,
        tools: Sequence[Tool | Callable[..., Any]],
        model: Model,
        prompt_templates: Mapping[str, Any] | str | Path | None = None,
        *,
        additional_authorized_imports: Sequence[str] | None = None,
        sandbox: AnySandbox | Sandbox | SandboxSettings | None = None,
        max_print_outputs_length: int | None = None,
        use_structured_outputs_internally: bool = False,
        code_block_tags: tuple[str, str] | Literal["markdown"] | None = None,
        on_error: OnError = "keep",
        approve: Approve | None = None,
        **settings: Unpack[AgentSettings],
    ) -> None:
        check_kinds(use_structured_outputs_internally=use_structured_outputs_internally)
        self._authorized_imports = import_rules(additional_authorized_imports or ())
        self.max_print_outputs_length = _checked_limit(max_print_outputs_length)
        self.use_structured_outputs_internally = use_structured_outputs_internally
        self.code_block_tags = CodeTags.of(code_block_tags)
        self.on_error = checked_on_error(on_error)
        self._variables: dict[str, Any] = {}  # that the sandbox does not have yet
        self._handed = Handed()  # those that it has been given
        self._known: tuple[AnySandbox | None, str] = None, ""  # the sandbox that the record tells of, and its container
        self._first_step = 0  # the first of the steps in memory that is of this sandbox
        checked_settings(type(self), settings)
        super().__init__(tools, model, prompt_templates, **settings)
        self._workplace = workplace_of(sandbox, self.equipment.callables, additional_authorized_imports, approve)
        if self._workplace.authorized_imports != self.authorized_imports:  # those of a borrowed sandbox
            self._authorized_imports = self._workplace.authorized_imports
            self.memory.set_system_prompt(self.system_prompt)

    @property
    def authorized_imports(self) -> tuple[str, ...]:
        """What the code may import: rules of its sandbox, which are settled when that is made."""
        return self._authorized_imports

    def _prompt_variables(self) -> dict[str, Any]:
        return {
            "authorized_imports": None if "*" in self.authorized_imports else list(self.authorized_imports),
            "structured_outputs": self.use_structured_outputs_internally,
            "code_block_opening_tag": self.code_block_tags.opening,
            "code_block_closing_tag": self.code_block_tags.closing,
        }

    def _question(self) -> Question:
        messages = self.write_memory_to_messages()
        if self.use_structured_outputs_internally:
            return Question(messages, response_format=RESPONSE_FORMAT)
        closing = self.code_block_tags.stop_sequence
        return Question(messages, ("\nObservation:",) if closing is None else ("\nObservation:", closing))

    async def _open(self, given: Given) -> None:
        # Raises now, before anything is started, what would raise after a model call.
        encoded_variables(given.additional_args, self._workplace.tool_names)
        await self._opened()
        self._variables = {**self._variables, **given.additional_args}

    async def _opened(self) -> AnySandbox:
        """The sandbox, started; a record says when it is a new one."""
        sandbox = await self._workplace.open()
        if self._recorder and (sandbox, sandbox.name) != self._known:
            await self._recorder.sandbox(sandbox.name)
        self._know(sandbox)
        self._record_outside()
        return sandbox

    def _record_outside(self) -> None:
        if self._recorder and self._unbuilt is None:
            self._workplace.recorded_by(self._recorder)

    def _know(self, sandbox: AnySandbox) -> None:
        """It may be another than that of the steps until now, or have another container: the one before was spent."""
        known = sandbox, sandbox.name
        if known != self._known:
            self._handed, self._first_step = Handed(), len(self.memory.steps)
        self._known = known

    async def _act(self, reply: ModelReply, interruption: Interruption) -> AsyncGenerator[AgentEvent | Outcome, None]:
        read = structured_action if self.use_structured_outputs_internally else extract_code
        match read(reply.text, self.code_block_tags):
            case FormatError(message):
                yield Outcome(reply.text, error=StepError("format", message))
            case CodeAction() as action:
                yield action
                async with aclosing(with_team(self._execute(action.code, interruption))) as events:
                    async for event in events:
                        if isinstance(event, Finished):
                            settled = await self._settled(event)
                            yield Finished(settled.execution)
                            seen = observe(
                                settled.execution, self.max_print_outputs_length, not_undone=settled.not_undone
                            )
                            yield seen
                            yield self._outcome(reply.text, action, settled.execution, seen)
                        else:
                            yield event

    async def _execute(self, code: str, interruption: Interruption) -> AsyncGenerator[ExecutionEvent, None]:
        """The events of running ``code``.

        ``Finished`` is held back until the sandbox is free again: who is told may want to use it.
        """
        end: list[Finished] = []
        use_tape(self._recorder.tape if self._recorder else None)
        async with (
            self._entered() as sandbox,
            interruption.passed_on(sandbox.interrupt),
            aclosing(sandbox.stream(code, variables=self._variables)) as events,
        ):
            if self._recorder:
                self._recorder.is_under_way = True
            async for event in events:
                if isinstance(event, Finished):
                    self._workplace.ran(event.execution.execution_count)
                    end.append(event)
                else:
                    yield event
        for event in end:
            yield event

    @asynccontextmanager
    async def _sandbox(self) -> AsyncIterator[AnySandbox]:
        """The sandbox, started. One that fails inside is thrown away: the next run gets another."""
        try:
            yield await self._opened()
        except CheckpointError:  # the sandbox is sound, it only lacks the state that it was asked for
            raise
        except SandboxError:
            await self._workplace.discard()
            raise

    @asynccontextmanager
    async def _entered(self) -> AsyncIterator[AnySandbox]:
        """The same, for an execution."""
        async with self._sandbox() as sandbox:
            self._workplace.enter()
            yield sandbox

    async def _settled(self, event: Finished) -> Settled:
        """With the state that is wanted after a failure, before anybody hears of it and uses the sandbox again."""
        settled = Settled(event.execution)
        if self.on_error == "rollback" and is_undoable(event.execution):
            async with self._sandbox() as sandbox:
                settled = await undone(sandbox, event.execution)
        if settled.execution.execution_count and settled.execution.state is State.KEPT:
            if self._variables:
                self._handed.by_count[settled.execution.execution_count] = self._variables
            self._variables = {}  # otherwise they went with what was undone, and are sent again
        return settled

    async def _news(self) -> list[NoteStep]:
        """The variables that went with what somebody else has taken back are sent again."""
        notes = []
        for back in self._workplace.news():
            self._variables = self._handed.taken_back(back) | self._variables
            if self._recorder:
                await self._recorder.taken_back(back)
            notes.append(told_of(back, self.memory.steps[self._first_step :]))
        return notes

    def _outcome(self, reply: str, action: CodeAction, execution: Execution, seen: Observation) -> Outcome:
        """A final answer counts only if the code that gave it ran to its end: what failed is tried again."""
        return Outcome(
            # With the closing that was cut off: the model should see its past replies in the form it is asked for.
            model_output=f"{reply.rstrip()}\n{self.code_block_tags.closing}" if action.cut else reply,
            code_action=action.code,
            observations=seen.text,
            remarks=seen.remarks,
            error=StepError("execution", seen.error) if seen.error is not None else None,
            execution=execution,
            action_output=execution.value,
            final_answer=execution.final_answer if execution.ok else None,
            code_tags=None if self.code_block_tags == CodeTags() else self.code_block_tags,
        )

    def _shown_type(self, value: Any) -> str:
        return arriving_type(value, self.authorized_imports)

    # Going on with a recorded run.

    def _has_state(self) -> bool:
        return self._workplace.is_open

    async def _reopen(self, recording: Recording | None) -> Rebuilding:
        if recording is None:
            await self._opened()
            return Rebuilding()
        await self._workplace.discard()  # an attempt that failed midway may have left one
        sandbox = await self._workplace.open()
        self._know(sandbox)  # the record is told of it once it has its state
        self._variables = recording.taken | recording.variables
        if isinstance(self._workplace, BorrowedWorkplace):
            return Rebuilding(differences=(_BORROWED,) if recording.actions or recording.losses else ())
        if sandbox.was_kept:
            if same := await gone_back(sandbox, recording):
                self._handed = Handed({one.count: one.variables for one in recording.actions if one.variables})
                self._workplace.ran(recording.count)
                return same
            await self._workplace.discard()
            sandbox = await self._workplace.open()
            self._know(sandbox)
        lost = [loss.what for loss in recording.losses]
        actions, left = run_again(recording.actions)
        self._variables = left | self._variables
        built = await rebuild(actions, self._execute_again)
        return replace(built, differences=(*lost, *built.differences), sandbox=sandbox.name)

    async def _execute_again(self, code: str, variables: Mapping[str, Any], tape: Tape) -> Execution:
        use_tape(tape)
        async with self._entered() as sandbox, aclosing(sandbox.stream(code, variables=variables)) as events:
            execution = [event.execution async for event in events if isinstance(event, Finished)][-1]
        self._workplace.ran(execution.execution_count)
        if variables:
            self._handed.by_count[execution.execution_count] = variables
        return execution

    async def _unmake(self) -> None:
        await self._workplace.discard()

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
        branch = self._copy(self.memory.copy())
        branch._workplace = forked[0]
        branch._variables, branch._handed = dict(self._variables), Handed()
        return branch

    @property
    def shares_sandbox(self) -> bool:
        """True with a borrowed sandbox."""
        return not isinstance(self._workplace, OwnWorkplace)

    def copy_for_call(self) -> Self:
        """Another agent of the same settings, with a memory and a sandbox of its own; a borrowed sandbox is shared."""
        twin = super().copy_for_call()
        twin._variables, twin._handed, twin._known = {}, Handed(), (None, "")
        twin._workplace = self._workplace.another()
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


def _checked_limit(limit: int | None) -> int:
    if limit is None:
        return DEFAULT_MAX_PRINT_OUTPUTS_LENGTH
    if type(limit) is not int or limit < 1:
        raise AgentError(f"max_print_outputs_length is {limit!r}; it must be a whole number, at least 1")
    return limit
