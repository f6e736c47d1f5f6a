"""``CodeAgent``: its actions are Python code, run in a sandbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal

from orchestrator.agents.callbacks import FinalAnswerCheck, StepCallbacks
from orchestrator.agents.interruption import Interruption
from orchestrator.agents.loop import MultiStepAgent, Outcome
from orchestrator.agents.memory import StepError
from orchestrator.agents.observation import DEFAULT_MAX_PRINT_OUTPUTS_LENGTH, observe
from orchestrator.agents.parsing import CodeAction, CodeTags, FormatError, extract_code
from orchestrator.agents.prompts import code_agent_prompt
from orchestrator.agents.run import AgentEvent
from orchestrator.agents.workplace import BorrowedWorkplace, OwnWorkplace, SandboxSettings, Workplace
from orchestrator.errors import AgentError, SandboxError
from orchestrator.events import Execution, ExecutionEvent, Finished
from orchestrator.models import Model
from orchestrator.policy import import_rules
from orchestrator.sandbox import AsyncSandbox, Sandbox
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
        name: str | None = None,
        description: str | None = None,
    ) -> None:
        self.tools = _by_name(tools)
        self.authorized_imports = import_rules(additional_authorized_imports or ())
        self._tags = CodeTags.of(code_block_tags)
        self._print_limit = _checked_limit(max_print_outputs_length)
        self._workplace = self._make_workplace(sandbox, additional_authorized_imports)
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
        self, sandbox: AsyncSandbox | Sandbox | SandboxSettings | None, imports: Sequence[str] | None
    ) -> Workplace:
        if isinstance(sandbox, AsyncSandbox | Sandbox):
            if imports:
                raise AgentError("additional_authorized_imports: give them to the sandbox, as its authorized_imports")
            lent = sandbox if isinstance(sandbox, AsyncSandbox) else sandbox.asynchronous
            workplace = BorrowedWorkplace(lent, frozenset(self.tools))
            self.authorized_imports = workplace.authorized_imports
            return workplace
        settings = sandbox or SandboxSettings()
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
                        yield event
                        if isinstance(event, Finished):
                            yield self._outcome(reply, action, event.execution)

    async def _execute(self, code: str, interruption: Interruption) -> AsyncGenerator[ExecutionEvent, None]:
        """The events of running ``code``. A sandbox that failed is thrown away: the next run gets another.

        ``Finished`` is held back until the sandbox is free again: who is told may want to use it.
        """
        end: list[Finished] = []
        try:
            sandbox = await self._workplace.open()
            async with interruption.passed_on(sandbox.interrupt), aclosing(sandbox.stream(code)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        end.append(event)
                    else:
                        yield event
        except SandboxError:
            await self._workplace.discard()
            raise
        for event in end:
            yield event

    def _outcome(self, reply: str, action: CodeAction, execution: Execution) -> Outcome:
        """A final answer counts only if the code that gave it ran to its end: what failed is tried again."""
        seen = observe(execution, self._print_limit)
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
