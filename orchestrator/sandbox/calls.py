"""The tool calls of one execution: each is judged, perhaps approved, made, answered, and written into the ledger."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from inspect import BoundArguments
from typing import Any

from executor_api.v1 import executor_pb2 as pb

from orchestrator.audit.records import ToolBegun, ToolEnded
from orchestrator.errors import AuditError
from orchestrator.events import Ending, ToolCall, ToolOutcome
from orchestrator.policy import ALLOWED, ToolCallRequest, Verdict
from orchestrator.sandbox.approval import Approver, Record, decided
from orchestrator.sandbox.clock import Clock
from orchestrator.sandbox.foreign import Foreign, Overdue, Raised
from orchestrator.sandbox.grants import HostTool, HostTools
from orchestrator.sandbox.invocation import Answer, failed, failure, invoke, refused, refused_arguments
from orchestrator.sandbox.ledger import Ledger, OpenCall
from orchestrator.sandbox.values import decode_call


@dataclass(frozen=True, slots=True)
class ToolHost:
    """What the calls of one sandbox are made with, execution after execution."""

    tools: HostTools
    approver: Approver
    foreign: Foreign  # where they run
    record: Record


class ToolCalls:
    """Those of one execution. Each that is made runs in a task of ``running``, which gives its outcome.

    Args:
        host: the sandbox's.
        execution: its count.
        context: that the tools run in.
        send: takes what answers a call.
        clock: the execution's.
    """

    def __init__(
        self,
        host: ToolHost,
        execution: int,
        context: contextvars.Context,
        send: Callable[[pb.ToolResult], None],
        clock: Clock,
    ) -> None:
        self._host = host
        self._execution = execution
        self._context = context
        self._send = send
        self._clock = clock
        self._over = False
        self._tasks: dict[int, asyncio.Task[ToolOutcome | None]] = {}
        self.ledger = Ledger()

    @property
    def running(self) -> set[asyncio.Task[ToolOutcome | None]]:
        """The calls whose outcome has not been taken."""
        return set(self._tasks.values())

    async def begin(self, message: pb.ToolCall) -> list[ToolCall | ToolOutcome]:
        """A call has come in: the events of that, which are its outcome if it is refused.

        Raises:
            AuditError: it cannot be recorded.
            ProtocolViolation: its arguments are no values.
        """
        name = message.name.decode("utf-8", "replace")
        spent = self.ledger.spent(self._host.foreign.left)
        verdict = self._host.tools.policy.review(name, len(message.arguments), spent)
        call = self.ledger.begin(message.call, name, message.arguments)
        if not verdict.allowed:  # before anything of its arguments is looked at
            outcome = await self._end(call, refused(verdict.reason, verdict.rule))
            return [outcome] if outcome else []
        self.ledger.charge(len(message.arguments))
        args, kwargs, call.parts = decode_call(message.arguments)
        made = ToolCall(message.call, name, args, kwargs)
        self._tasks[made.id] = asyncio.create_task(self._run(call, made), context=self._context.copy())
        return [made]

    def take(self, done: set[asyncio.Task[ToolOutcome | None]]) -> list[ToolOutcome]:
        """The outcomes of tasks that are done.

        Raises:
            AuditError: one could not be recorded.
        """
        self._tasks = {call: task for call, task in self._tasks.items() if task not in done}
        return [outcome for task in done if (outcome := task.result())]

    async def end(self) -> list[ToolOutcome]:
        """The execution is over: calls that run are given up. The outcomes that have not been taken, theirs included.

        Raises:
            AuditError: one could not be recorded.
        """
        self._over = True
        given_up = self.ledger.open
        tasks = [task for call in given_up if (task := self._tasks.pop(call.id, None))]
        for task in tasks:
            task.cancel()
        settled = set(self._tasks.values())  # ended, and about to be recorded
        if tasks or settled:
            await asyncio.wait({*tasks, *settled})  # which has what they are recording now written first
        outcomes = await self._all_over(given_up)
        return outcomes + self.take(settled)

    async def _all_over(self, given_up: Iterable[OpenCall]) -> list[ToolOutcome]:
        """Each is in the ledger after this, also if none can be recorded."""
        outcomes, failure = [], None
        for call in given_up:
            try:
                if outcome := await self._end(call, _over(call)):
                    outcomes.append(outcome)
            except AuditError as error:
                failure = failure or error
        if failure:
            raise failure
        return outcomes

    async def _run(self, call: OpenCall, made: ToolCall) -> ToolOutcome | None:
        return await self._end(call, await self._answer(call, made))

    async def _end(self, call: OpenCall, answer: Answer) -> ToolOutcome | None:
        outcome = self.ledger.end(call, answer)
        if outcome is None:  # given up before
            return None
        if answer.failure:
            self.ledger.charge(answer.failure.ByteSize())
        if self.ledger.writes(outcome):
            await self._host.record(ToolEnded.of(self._execution, outcome))
        if not self._over:
            self._send(_result(self._execution, call.id, answer))
        return outcome

    async def _answer(self, call: OpenCall, made: ToolCall) -> Answer:
        tool = self._host.tools[made.name]
        arguments = await self._checked(tool, made, call.weight)
        if isinstance(arguments, Answer):
            return arguments
        verdict = await self._approved(call, arguments)
        if not verdict.allowed:
            return refused(f"the call of {made.name}() was {verdict.reason}", verdict.rule)
        await self._host.record(
            ToolBegun(self._execution, call.id, call.name, call.arguments_sha256, call.arguments_bytes)
        )
        call.made = True
        seconds = self._host.tools.timeout(made.name)
        with self._clock.handed_over() if tool.stops_clock else nullcontext():
            answer = await invoke(tool, made, seconds, call.weight, self._host.foreign)
        return self._within_budget(made.name, answer)

    async def _checked(self, tool: HostTool, made: ToolCall, weight: int) -> Mapping[str, Any] | Answer:
        """The arguments by name, or the refusal of those that the tool does not take.

        Where somebody will be asked about them they are checked whole, in a thread, as they may have many parts.
        Otherwise the tool does that itself when it is called.
        """
        seconds = self._host.tools.check_timeout(tool.name)
        try:
            if not self._host.approver.asks:
                return tool.signature.bind(*made.args, **made.kwargs).arguments
            work = partial(tool.check, *made.args, **made.kwargs)
            bound: BoundArguments = await self._host.foreign.run(work, is_async=False, seconds=seconds, weight=weight)
            return bound.arguments
        except TypeError as error:
            return refused_arguments(str(error))
        except Raised as raised:
            if isinstance(raised.error, TypeError):
                return refused_arguments(str(raised.error))
            return failed(tool, raised.error)  # its own checks have failed, and may tell what is not for the code
        except Overdue:
            return refused_arguments(f"{tool.name}(): its arguments could not be checked within {seconds:g} s")

    async def _approved(self, call: OpenCall, arguments: Mapping[str, Any]) -> Verdict:
        if not self._host.approver.asks:
            return ALLOWED
        request = ToolCallRequest(call.name, arguments, self._execution)
        return await decided(self._ask(request, call.weight), call.name, call.arguments_sha256, self._host.record)

    async def _ask(self, request: ToolCallRequest, weight: int) -> Verdict:
        with self._clock.stopped():
            return await self._host.approver.ask(request, weight)

    def _within_budget(self, name: str, answer: Answer) -> Answer:
        """The answer; a result that is over the budget is left out."""
        what = f"{name}() has ended, but its result cannot be sent"
        verdict = self._host.tools.policy.review_bytes(what, len(answer.value), self.ledger.spent(0))
        if not verdict.allowed:
            told = failure("PermissionError", verdict.reason)
            return Answer(Ending.FAILED, failure=told, refused_by=verdict.rule)
        self.ledger.charge(len(answer.value))
        return answer


def _result(execution: int, call: int, answer: Answer) -> pb.ToolResult:
    if answer.failure:
        return pb.ToolResult(id=execution, call=call, failure=answer.failure)
    return pb.ToolResult(id=execution, call=call, value=answer.value)


def _over(call: OpenCall) -> Answer:
    """Of a call that had not ended when its execution did."""
    if not call.made:
        return refused("the execution ended before it was made", "execution_ended")
    told = "the execution ended before it did; whether it took effect is not known"
    return Answer(Ending.CANCELLED, failure=failure("Cancelled", told))
