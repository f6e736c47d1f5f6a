"""The face that every sandbox has, wherever it is: in a container of this process's, or at an orchestrator service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from orchestrator.errors import SandboxDied
from orchestrator.events import Execution, ExecutionEvent, Finished, Output
from orchestrator.sandbox.files import AnyFiles
from orchestrator.sandbox.state import Checkpoint, Rollback, Which

if TYPE_CHECKING:
    from orchestrator.sandbox.isolation import Isolation

OnText = Callable[[str], object]


class AnySandbox(ABC):
    """What ``AsyncSandbox`` and ``RemoteSandbox`` have in common. The former says what each method does and raises."""

    files: AnyFiles

    @property
    @abstractmethod
    def has_final_answer(self) -> bool:
        """True if ``final_answer(value)`` exists in this sandbox."""

    @property
    @abstractmethod
    def tool_names(self) -> frozenset[str]:
        """The names of the host tools that this sandbox may call."""

    @property
    @abstractmethod
    def authorized_imports(self) -> tuple[str, ...]:
        """The whole allowlist: the default and what was added."""

    @property
    @abstractmethod
    def is_running(self) -> bool:
        """True if the container has been started and nothing has ended it."""

    @property
    def name(self) -> str:
        """Of its container, which no other has; empty while there is none, or where it is not known."""
        return ""

    @property
    def was_kept(self) -> bool:
        """True if it goes on with what another process has left: its variables and files are there."""
        return False

    @property
    def last_execution(self) -> int:
        """The number of the last execution that was begun in its container; 0 if there was none, or it is not known."""
        return 0

    @property
    @abstractmethod
    def forkable(self) -> bool:
        """False while threads of the code are alive: no checkpoint and no branch can be made of such a process."""

    @property
    @abstractmethod
    def branches(self) -> tuple[Self, ...]:
        """Every open branch in this sandbox's container but this one itself."""

    @abstractmethod
    async def start(self) -> None:
        """Starts the container; does nothing if it runs."""

    @abstractmethod
    async def close(self) -> None:
        """Removes the container, and closes every branch in it. A second time does nothing."""

    @abstractmethod
    async def reset(self) -> None:
        """A fresh container: variables, files, checkpoints and branches are gone."""

    @abstractmethod
    async def isolation(self) -> Isolation:
        """What was found in force, from inside, when the container came up."""

    @abstractmethod
    async def checkpoint(self, name: str = "") -> Checkpoint:
        """Keeps the present state until it is dropped."""

    @abstractmethod
    async def checkpoints(self) -> list[Checkpoint]:
        """Every state that is kept, oldest first."""

    @abstractmethod
    async def rollback(self, to: Which) -> Rollback:
        """Goes back to a checkpoint."""

    @abstractmethod
    async def undo(self, execution: int | None = None) -> Rollback:
        """Goes back to the state before the last execution."""

    @abstractmethod
    async def drop(self, checkpoint: Which) -> None:
        """Lets a checkpoint go."""

    @abstractmethod
    async def fork(self, at: Which | None = None) -> Self:
        """A branch: a sandbox of its own in the same container."""

    @abstractmethod
    async def interrupt(self) -> None:
        """Stops the execution under way, if there is one."""

    @abstractmethod
    def stream(
        self, code: str, *, timeout: float | None = None, variables: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """Runs one action and yields what happens: Output, ToolCall, ToolOutcome, at last Finished."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def run_code(
        self,
        code: str,
        *,
        timeout: float | None = None,
        variables: Mapping[str, Any] | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
    ) -> Execution:
        """Runs one action and waits for its end.

        A failure of the code is in the result (``error``, ``status``), not raised; so is the refusal of an approver.

        Args:
            code: what to run.
            timeout: seconds. Default: the sandbox's.
            variables: set in the code's namespace before it runs, as part of this execution: going back to before it
                takes them away again. At most 256, within the bounds of one value (2 MiB).
            on_stdout: gets text as it is written.
            on_stderr: the same.

        Raises:
            ConfigError: something is wrong with the names of the variables. Nothing was run.
            ValueNotPortable: a value of theirs cannot cross the wall; names its type and path. Nothing was run.
            SandboxDied: the container went away meanwhile; what the code did is unknown, and it is not run again.
            OutcomeUnknown: the same, while tools ran for the code; its ``tool_calls`` say which.
            AuditError: something could not be recorded. If that was the beginning, nothing was run; else the execution
                was stopped, or its outcome is lost.
        """
        handlers = {"stdout": on_stdout, "stderr": on_stderr}
        events = self.stream(code, timeout=timeout, variables=variables)
        try:
            async for event in events:
                match event:
                    case Output(stream, text) if handler := handlers[stream]:
                        handler(text)
                    case Finished(execution):
                        return execution
        finally:
            await events.aclose()
        raise SandboxDied("the execution ended without a result")
