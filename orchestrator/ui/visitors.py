"""Who uses an agent through the browser: each visitor has a copy of it, with a memory and a sandbox of its own.

Everything here lives on the background loop (``Portal``), where the copies' sandboxes live; nothing needs a lock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from orchestrator.agents import MultiStepAgent
from orchestrator.errors import (
    AgentError,
    AgentInterrupted,
    CellblockError,
    ConfigError,
    EngineError,
    ModelError,
    SandboxError,
    ValueNotPortable,
)
from orchestrator.sanitise import one_line
from orchestrator.ui.messages import Conversation
from orchestrator.ui.transcript import Transcript
from orchestrator.ui.uploads import MAX_FILES, Handover, Upload, UploadFolder, safe_name

MAX_LOGGED = 1_000  # characters of a failure in the log: it may quote what a model or a sandbox said
MAX_TASK = 100_000  # characters of one message of a visitor
IDLE = 3_600.0  # seconds; who was silent that long makes room for others, if there is none
NEW = 10.0  # seconds from coming to the first run; who has none then makes room, too
END_DEADLINE = 5.0  # seconds for a run to end that was stopped, before its agent is closed
_log = logging.getLogger("orchestrator.ui")

Key = tuple[str, str]  # the name that the visitor logged in with, if any, and the browser's session


class Visitor:
    """One conversation.

    Args:
        agent: a copy for this visitor alone, which is closed with it.
        folder: for uploaded files; None: none are taken.
        resets: each run forgets the conversation before it.
    """

    def __init__(self, agent: MultiStepAgent, folder: UploadFolder | None, *, resets: bool) -> None:
        self.last_seen = time.monotonic()
        self._agent = agent
        self._folder = folder
        self._resets = resets
        self._conversation = Conversation()
        self._work: asyncio.Task[None] | None = None
        self._is_stopped = False

    @property
    def may_leave(self) -> bool:
        """Nothing of a run is lost, or nobody has asked for it for long."""
        silent = time.monotonic() - self.last_seen
        return not self.is_busy and silent >= (NEW if self._work is None else IDLE)

    @property
    def is_busy(self) -> bool:
        """A run is under way."""
        return self._work is not None and not self._work.done()

    def messages(self) -> list[dict[str, Any]]:
        """The conversation as it is now, for gradio's ``Chatbot``."""
        return self._conversation.as_dicts()

    async def work(self, text: str, paths: Sequence[str]) -> None:
        """One run. Whatever becomes of it is shown in the conversation; a cancelled one is stopped.

        Raises:
            AgentError: another run is under way, or there is nothing to work on.
        """
        self.last_seen = time.monotonic()
        if self.is_busy:
            raise AgentError("the agent is still at work for you; stop it, or wait")
        check_message(text, paths)
        self._is_stopped = False
        self._work = asyncio.create_task(self._run(text, paths))
        try:
            await self._work
        finally:
            self._work.cancel()
            self.last_seen = time.monotonic()

    async def _run(self, text: str, paths: Sequence[str]) -> None:
        transcript, problem = Transcript(self._conversation.new_run()), None
        transcript.ask(text, [safe_name(Path(path).name) for path in paths[: MAX_FILES + 1]])
        try:
            given = Handover.of(text, await self._taken(paths))
            if self._is_stopped:  # before the agent had begun, and could be told
                raise AgentInterrupted("stopped before it began")
            events = self._agent.astream(
                given.task, reset=self._resets, images=given.images, additional_args=given.additional_args
            )
            async with aclosing(events):
                async for event in events:
                    transcript.show(event)
        except Exception as error:  # noqa: BLE001 — of a tool, a callback or a check: this visitor's run alone has ended
            problem = _told(error)
        except asyncio.CancelledError:
            problem = "The run was given up."
            raise
        finally:
            transcript.end(problem)

    async def _taken(self, paths: Sequence[str]) -> list[Upload]:
        if not paths:
            return []
        if self._folder is None:
            raise ConfigError("files are not taken here")
        return await asyncio.to_thread(self._folder.take, paths)

    def stop(self) -> None:
        """Ends the run under way, if there is one. The conversation can go on."""
        self._is_stopped = True
        self._agent.interrupt()

    async def close(self) -> None:
        """Stops the run, closes the agent, removes the files. Idempotent."""
        if self._work is not None and not self._work.done():
            self.stop()
            await asyncio.wait({self._work}, timeout=END_DEADLINE)
            self._work.cancel()
        try:
            await self._agent.aclose()
        finally:
            if self._folder is not None:
                await asyncio.to_thread(self._folder.clear)


class Visitors:
    """Those who are there, by the keys of their sessions.

    Args:
        agent: its copies do the work; it itself is not touched.
        limit: how many visitors at the same time.
        resets: each run forgets the conversation before it.
        folder: for uploaded files; None: none are taken.
        types: the endings of their names.

    Raises:
        AgentError: the agent, or a member of its team, works in a sandbox that its copies would share.
    """

    def __init__(
        self,
        agent: MultiStepAgent,
        *,
        limit: int,
        resets: bool = False,
        folder: str | Path | None = None,
        types: Sequence[str] = (),
    ) -> None:
        _check_apart(agent)
        self._agent = agent
        self._limit = limit
        self._resets = resets
        self._folder = None if folder is None else Path(folder)
        self._types = types
        self._there: dict[Key, Visitor] = {}

    def __len__(self) -> int:
        return len(self._there)

    async def get(self, key: Key) -> Visitor:
        """The visitor of that session; a new one if there is none.

        Raises:
            AgentError: there are as many as there may be.
        """
        while key not in self._there and len(self._there) >= self._limit:
            await self._make_room()  # others may come meanwhile, or another message of this session
        if key not in self._there:
            self._there[key] = self._new()
        return self._there[key]

    def known(self, key: Key) -> Visitor | None:
        """The visitor of that session, if there is one."""
        return self._there.get(key)

    async def leave(self, key: Key) -> None:
        """That visitor has gone: everything of theirs goes, too."""
        visitor = self._there.pop(key, None)
        if visitor is not None:
            await visitor.close()

    async def close(self) -> None:
        """All leave."""
        await asyncio.gather(*(self.leave(key) for key in list(self._there)))

    def _new(self) -> Visitor:
        taken = self._agent.equipment.callables
        folder = None if self._folder is None else UploadFolder(self._folder, self._types, taken)
        return Visitor(self._agent.copy_for_call(), folder, resets=self._resets)

    async def _make_room(self) -> None:
        """Sends the one away who has been silent longest."""
        silent: Callable[[Key], float] = lambda key: self._there[key].last_seen  # noqa: E731
        oldest = min((key for key in self._there if self._there[key].may_leave), key=silent, default=None)
        if oldest is None:
            raise AgentError("too many people are here at the moment; try again later")
        await self.leave(oldest)


def check_message(text: str, paths: Sequence[str]) -> None:
    """That there is something to work on: before somebody takes a place here for it.

    Raises:
        AgentError: there is nothing, or too much.
    """
    if not text.strip() and not paths:
        raise AgentError("write what is to be done")
    if len(text) > MAX_TASK:
        raise AgentError(f"a message may have {MAX_TASK:,} characters")


def _check_apart(agent: MultiStepAgent) -> None:
    if agent.shares_sandbox:
        raise AgentError(
            "GradioUI: the visitors would share the sandbox that the agent was lent; make the agent with "
            "SandboxSettings, or without a sandbox, so that each has one of its own"
        )
    for member in agent.managed_agents.values():
        _check_apart(member)


def _told(error: Exception) -> str:
    """What a visitor is told of the end of a run. What may speak of this host is for the log alone."""
    if isinstance(error, AgentInterrupted):
        return "Stopped. You can go on."
    if isinstance(error, (AgentError, ConfigError, ValueNotPortable)):
        return f"That did not work: {error}"
    _log.error("a visitor's run failed: %s", one_line(f"{type(error).__name__}: {error}", MAX_LOGGED))
    what = {ModelError: "The model failed", SandboxError: "The sandbox failed", EngineError: "There is no sandbox"}
    kind = next((text for cls, text in what.items() if isinstance(error, cls)), "The run failed")
    name = type(error).__name__ if isinstance(error, CellblockError) else "an error of the program"
    return f"{kind} ({name}); the program's log says more. You can try again."
