"""Goes on with a recorded run from its last finished step, after a crash or in the same program."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from orchestrator.agents.arrival import type_in_words
from orchestrator.agents.faces import Faces
from orchestrator.agents.given import Given
from orchestrator.agents.interruption import Interruption
from orchestrator.agents.outcome import end_of_run
from orchestrator.agents.rebuilding import Rebuilding, told
from orchestrator.agents.record import Recorder
from orchestrator.agents.recording import Recording, load_recording
from orchestrator.agents.run import AgentEvent, Rebuilt
from orchestrator.agents.steps import ActionStep, FinalAnswerStep, KeptStep, TaskStep
from orchestrator.errors import AgentError
from orchestrator.sandbox import Portal

_GIVEN_UP = "the step under way was given up midway"


class Resuming(Faces):
    """An agent whose runs can be recorded and gone on with."""

    _recorder: Recorder | None = None
    _unbuilt: Recording | None = None  # what the sandbox's state is yet to be made of

    def resume(
        self,
        path: str | Path | None = None,
        stream: bool = False,
        *,
        strict: bool = False,
        return_full_result: bool | None = None,
    ) -> Any:
        """Goes on with the last run of a record from its last finished step, and gives its answer. Blocks.

        For an agent that is made like the one that recorded it (same tools, model, settings), in another process or in
        the same. The memory is read; the steps that are left are those that were; a plan is not made twice. The code of
        recorded steps is run again, in order, in a new sandbox; no tool is called for that: its recorded result is
        given. An approver is asked about that code again. What is random or depends on the time comes out otherwise.
        Where it is noticed that the state may not be as it was, the model is told, and the stream has it in a
        ``Rebuilt``, a ``RunResult`` in ``differences``. A ``ToolCallingAgent`` has nothing to rebuild. A run that had
        ended gives its answer again; the model is not asked. The record is continued. Go on with none that you do not
        trust: what it says is what your model will be told; its code runs in the sandbox only.

        Args:
            path: of the record; default the agent's own ``record``.
            stream: give an iterator over the events from here on instead; closing it ends the run.
            strict: raise rather than go on with a state that may differ, or after tool calls of a step that was lost.
            return_full_result: as in ``run``; its usage and timing are those since the run was resumed.

        Raises:
            AgentError: there is no record, or none of a run; or the agent has worked on something else; or with
                ``strict`` the state cannot be made again as it was: the record is then as before.
            Exception: as ``run``.
        """
        if stream:
            return Portal.iterate(self.astream_resume(path, strict=strict))
        return Portal.run(self.aresume(path, strict=strict, return_full_result=return_full_result))

    async def aresume(
        self, path: str | Path | None = None, *, strict: bool = False, return_full_result: bool | None = None
    ) -> Any:
        """``resume()``, awaited."""
        return await self._result_of(self.astream_resume(path, strict=strict), return_full_result)

    async def astream_resume(
        self, path: str | Path | None = None, *, strict: bool = False
    ) -> AsyncGenerator[AgentEvent, None]:
        """``resume()`` as a stream of what happens from here on."""
        async with aclosing(self._shown(self._resume(path, strict))) as events:
            async for event in events:
                yield event

    async def _resume(self, path: str | Path | None, strict: bool) -> AsyncGenerator[AgentEvent, None]:
        with self._one_run() as interruption:
            recorder, is_live = self._recorder_of(path)
            recording = await _claimed(recorder)
            if recording.run is None:
                raise AgentError(f"{recorder.path} has no run to go on with")
            self._take(recorder, recording, is_live)
            if end := _end(recording):
                await self._continued(recording)
                yield await self._finish(end)
                return
            async with aclosing(self._go_on(recording, strict, interruption)) as events:
                async for event in events:
                    yield event

    async def atake_over(self) -> None:
        """Has the memory and the variables that the runs in its own record have left; goes on with none of them.

        The sandbox is made at the next run, which begins with that if it has ``reset=False``.

        Raises:
            AgentError: there is no record; or the agent has worked on something else.
        """
        with self._one_run():
            recorder, is_live = self._recorder_of(None)
            recording = await _claimed(recorder)
            self._take(recorder, recording, is_live)
            await self._continued(recording)

    def _take(self, recorder: Recorder, recording: Recording, is_live: bool) -> None:
        if not is_live:
            self.memory.take(recording.memory)
        if not is_live or not self._has_state():
            self._unbuilt = recording
        self._recorder = recorder

    async def _go_on(
        self, recording: Recording, strict: bool, interruption: Interruption
    ) -> AsyncGenerator[AgentEvent, None]:
        run = recording.run
        assert run
        async with aclosing(self._made_again(recording, strict, interruption)) as events:
            async for event in events:
                yield event
        self.memory.set_system_prompt(self.system_prompt)
        number = next((step.step_number for step in _actions(recording.run_steps)), 0) + 1
        given = Given(run.task, run.images, run.args)
        if not recording.run_steps:  # it ended before it began
            yield await self._remember(TaskStep(given.text(self._shown_type), given.images))
        async with aclosing(self._steps(given, run.limit, interruption, number)) as events:
            async for event in events:
                yield event

    async def _made_again(
        self, recording: Recording, strict: bool, interruption: Interruption
    ) -> AsyncGenerator[AgentEvent, None]:
        """Makes the sandbox's state of what is recorded, if it is yet to be; the model and the caller are told.

        Nothing is written before it is there: what fails here can be tried again.
        """
        assert self._recorder
        rebuilding = await interruption.guard(self._reopen(self._unbuilt))
        given_up = self._recorder.is_under_way and self._unbuilt is None
        untold = [] if self._unbuilt is None else self._unbuilt.untold  # if it lives, it has that in its news
        differences = (*untold, *rebuilding.differences, *([_GIVEN_UP] if given_up else []))
        note = told(differences, [*recording.lost_calls, *recording.open_calls.values()])
        if strict and note:
            if self._unbuilt is not None:
                await self._unmake()
            raise AgentError(f"the run is not gone on with, as it cannot be as it was:\n{note.note}")
        await self._continued(recording)
        if self._unbuilt is not None:
            if not rebuilding.is_same:
                await self._recorder.rebuilt(rebuilding.counts, rebuilding.sandbox)
            self._unbuilt = None
        self._record_outside()
        if rebuilding.actions or differences:
            yield Rebuilt(rebuilding.actions, differences)
        if note:
            yield await self._remember(note)

    async def _continued(self, recording: Recording) -> None:
        assert self._recorder
        await self._recorder.resume(recording.next_call, recording.state)

    def _recorder_of(self, path: str | Path | None) -> tuple[Recorder, bool]:
        """What goes on with the record, and whether this agent has made it, and still has all that it tells of."""
        own = self._recorder
        if path is None and own is None:
            raise AgentError("resume: give the path of a record, or make the agent with record=…")
        if own is not None and (path is None or Path(path) == own.path):
            is_live = own.is_open and self._unbuilt is None
            if not own.is_open and self._unbuilt is None and self.memory.steps:
                raise AgentError("resume: this agent has worked on something else; make a new one")
            return own, is_live
        if self.memory.steps or (own is not None and own.is_open):
            raise AgentError("resume: this agent has worked on something else; make a new one")
        assert path is not None
        return Recorder(Path(path)), False

    # What the loop has.

    @property
    @abstractmethod
    def system_prompt(self) -> str:
        """The first message of a conversation."""

    @abstractmethod
    def _steps(
        self, given: Given, limit: int, interruption: Interruption, first: int = 1
    ) -> AsyncGenerator[AgentEvent, None]:
        """The steps of a run from number ``first`` on, to its answer."""

    @abstractmethod
    async def _remember(self, step: Any) -> Any:
        """Keeps a step; callbacks are called, and it is recorded."""

    @abstractmethod
    async def _finish(self, step: FinalAnswerStep) -> FinalAnswerStep:
        """Calls the callbacks for the end."""

    # What a kind of agent adds.

    def _has_state(self) -> bool:
        """Whether the state is there that this agent's steps have made."""
        return True

    async def _reopen(self, recording: Recording | None) -> Rebuilding:
        """Makes ready what the run needs; with a recording, the state that its steps had made."""
        return Rebuilding()

    async def _unmake(self) -> None:
        """Throws away what ``_reopen`` has made."""

    def _record_outside(self) -> None:
        """What somebody else does to that state is recorded from now on: the record tells of it."""

    def _shown_type(self, value: Any) -> str:
        """The type of an additional argument, in words for the model."""
        return type_in_words(value)

    def _named_values(self) -> Mapping[str, Any]:
        """Values that a later step may name, and that have to be recorded for that."""
        return {}


async def _claimed(recorder: Recorder) -> Recording:
    """What it has written, which no other program goes on with from now on."""
    await recorder.claim()
    return await asyncio.to_thread(load_recording, recorder.path)


def _end(recording: Recording) -> FinalAnswerStep | None:
    """How the run ended, if it has.

    Raises:
        AnswerRefused: that is how.
    """
    last = next(_actions(recording.run_steps), None)
    return end_of_run(last, recording.run.limit) if last and recording.run else None


def _actions(steps: Sequence[KeptStep]) -> Iterator[ActionStep]:
    """Newest first."""
    return (step for step in reversed(steps) if isinstance(step, ActionStep))
