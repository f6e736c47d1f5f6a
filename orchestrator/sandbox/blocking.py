"""``Sandbox``: the face of ``AsyncSandbox`` for code that does not await."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from orchestrator.events import Execution
from orchestrator.portal import Portal
from orchestrator.sandbox.any_sandbox import AnySandbox, OnText
from orchestrator.sandbox.files import Files
from orchestrator.sandbox.state import Checkpoint, Rollback, Which

if TYPE_CHECKING:
    from orchestrator.sandbox.isolation import Isolation


class Sandbox:
    """``AsyncSandbox`` for code that does not await: the same arguments, methods and errors; usable from any thread."""

    def __init__(self, **settings: Any) -> None:
        from orchestrator.sandbox.sandbox import AsyncSandbox  # an app with a service has no engine to be imported

        self._wrap(AsyncSandbox(**settings))

    def _wrap(self, sandbox: AnySandbox) -> None:
        self._sandbox = sandbox
        self.files = Files(sandbox.files)

    @classmethod
    def _around(cls, sandbox: AnySandbox) -> Sandbox:
        """The face of a sandbox that is there already."""
        face = cls.__new__(cls)
        face._wrap(sandbox)
        return face

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sandbox) and self._sandbox is other._sandbox

    def __hash__(self) -> int:
        return hash(self._sandbox)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def asynchronous(self) -> AnySandbox:
        """The sandbox behind this face. It lives on the background loop of ``Portal``."""
        return self._sandbox

    @property
    def is_running(self) -> bool:
        """See ``AsyncSandbox.is_running``."""
        return self._sandbox.is_running

    def start(self) -> None:
        """See ``AsyncSandbox.start``."""
        Portal.run(self._sandbox.start())

    def close(self) -> None:
        """See ``AsyncSandbox.close``."""
        Portal.run(self._sandbox.close())

    def reset(self) -> None:
        """See ``AsyncSandbox.reset``."""
        Portal.run(self._sandbox.reset())

    def isolation(self) -> Isolation:
        """See ``AsyncSandbox.isolation``."""
        return Portal.run(self._sandbox.isolation())

    @property
    def forkable(self) -> bool:
        """See ``AsyncSandbox.forkable``."""
        return self._sandbox.forkable

    @property
    def branches(self) -> tuple[Sandbox, ...]:
        """See ``AsyncSandbox.branches``."""
        return tuple(map(Sandbox._around, self._sandbox.branches))

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """See ``AsyncSandbox.checkpoints``."""
        return Portal.run(self._sandbox.checkpoints())

    def checkpoint(self, name: str = "") -> Checkpoint:
        """See ``AsyncSandbox.checkpoint``."""
        return Portal.run(self._sandbox.checkpoint(name))

    def rollback(self, to: Which) -> Rollback:
        """See ``AsyncSandbox.rollback``."""
        return Portal.run(self._sandbox.rollback(to))

    def undo(self, execution: int | None = None) -> Rollback:
        """See ``AsyncSandbox.undo``."""
        return Portal.run(self._sandbox.undo(execution))

    def drop(self, checkpoint: Which) -> None:
        """See ``AsyncSandbox.drop``."""
        Portal.run(self._sandbox.drop(checkpoint))

    def fork(self, at: Which | None = None) -> Sandbox:
        """See ``AsyncSandbox.fork``."""
        return Sandbox._around(Portal.run(self._sandbox.fork(at)))

    def interrupt(self) -> None:
        """See ``AsyncSandbox.interrupt``; called from another thread than the one that waits for the execution."""
        Portal.run(self._sandbox.interrupt())

    def run_code(
        self,
        code: str,
        *,
        timeout: float | None = None,
        variables: Mapping[str, Any] | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
    ) -> Execution:
        """See ``AsyncSandbox.run_code``. The handlers run on the background loop."""
        running = self._sandbox.run_code(
            code, timeout=timeout, variables=variables, on_stdout=on_stdout, on_stderr=on_stderr
        )
        return Portal.run(running)
