"""Everything that can go wrong, drawn as a tree.

What a failure is called decides who is told about it::

    CellblockError
    ├── ConfigError                 the user is told: a setting is unknown or out of range
    ├── EngineError                 the user is told: the Docker engine cannot do what is asked
    │   ├── EngineUnavailable         no engine answers
    │   ├── EnginePermission          an engine is there, this user may not use it
    │   ├── ImageMissing              the executor image has not been built
    │   │   └── ImageChanged            it is not the one that was built here
    │   └── RuntimeUnavailable        the engine does not have the container runtime of the settings
    ├── SandboxError                the caller is told; never shown to a model as if its code had printed it
    │   ├── SandboxStartError         the container did not come up in time, or came up wrong
    │   │   ├── IsolationError          it came up without a restriction that must be in force
    │   │   │   └── SettingIgnored        the engine made it with other settings than it was asked for
    │   │   └── TooManySandboxes        this process has as many as it may have
    │   ├── SandboxDied               it went away while it was needed; what the execution did is unknown
    │   │   └── OutcomeUnknown          and so is what its tool calls did that had not ended
    │   ├── ProtocolViolation         the executor sent what it must never send; the container has been killed
    │   ├── SandboxClosed             used after close()
    │   ├── SandboxFileError          a file in the workspace cannot be read, written or listed
    │   └── CheckpointError           there is no such checkpoint, or none can be made now
    ├── AuditError                  the caller is told: a record cannot be written, so what it tells of is not done
    ├── ApprovalFailed              the approver failed; what it was asked about is refused
    ├── ValueNotPortable            the developer is told: this value cannot cross the wall (names type and path)
    ├── ToolError                   the developer is told: a tool's definition is wrong
    ├── ToolUnavailable             where a tool is from (an MCP server, a Space, the hub) is down, slow or gone
    ├── ServiceError                an app's developer is told: the orchestrator service cannot do what is asked
    │   ├── ServiceUnavailable        none answers, or the connection was lost for longer than the client waits
    │   ├── AccessDenied              there is no token, or it may not do this
    │   ├── Overloaded                it has no room now; ``retry_after`` says in how many seconds to try again
    │   ├── NotFound                  there is no such sandbox, run or question
    │   └── StoreError                its store cannot be opened, read or written
    ├── ModelError                  the model's endpoint failed; the run's memory is kept
    │   ├── ModelUnavailable          down, slow, refusing or rate-limiting, after the retries
    │   └── ModelReplyInvalid         it answered with something that is no reply
    └── AgentError                  the developer is told: an agent was put together or used wrongly
        ├── AgentInterrupted          somebody called interrupt()
        └── AnswerRefused             the steps are used up, and the last answer did not pass the checks

A failure of the *code* (exception, timeout, denied import) is no exception here: it is a value,
``Execution.error`` with ``Execution.status``. A failure of a *tool* is raised inside the agent's code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.events import ToolOutcome


class CellblockError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigError(CellblockError, ValueError):
    """A setting is unknown, of the wrong type, or out of range."""


def missing_extra(what: str, package: str, extra: str) -> ConfigError:
    """What to raise where an optional package cannot be imported. ``what`` needs ``package``, which ``extra`` has."""
    return ConfigError(f"{what} needs {package}; install it with: pip install 'cellblock[{extra}]'")


class EngineError(CellblockError):
    """The Docker engine refused or failed."""


class EngineUnavailable(EngineError):
    """No Docker engine answers."""


class EnginePermission(EngineError):
    """There is an engine, and this user may not talk to it."""


class ImageMissing(EngineError):
    """The executor image has not been built on this engine."""


class ImageChanged(ImageMissing):
    """What has the executor image's name on this engine is not the image that was built here."""


class RuntimeUnavailable(EngineError):
    """The engine does not have the container runtime of the settings. The message lists those that it has."""


class SandboxError(CellblockError):
    """The sandbox itself failed, as opposed to the code in it.

    Attributes:
        tool_calls: the ledger of the execution under way, if there was one, as in ``Execution.tool_calls``.
    """

    tool_calls: tuple[ToolOutcome, ...] = ()


class SandboxStartError(SandboxError):
    """The container did not come up in time, or came up wrong."""


class IsolationError(SandboxStartError):
    """A restriction that must be in force was found missing from inside the container."""


class SettingIgnored(IsolationError):
    """The engine made the container with other settings than it was asked for. The message names each of them."""


class TooManySandboxes(SandboxStartError):
    """This process has as many sandboxes as it may have at the same time."""


class SandboxDied(SandboxError):
    """The container or its executor went away while it was needed.

    What the current execution did before that is unknown. Code is never sent twice.
    """


class OutcomeUnknown(SandboxDied):
    """The sandbox went away while tools ran for it: whether those calls took effect is not known.

    ``tool_calls`` says which (``effect_unknown``). Nothing is called a second time.
    """


class ProtocolViolation(SandboxError):
    """The executor sent something that the protocol does not allow; its container has been killed."""


class SandboxClosed(SandboxError):
    """The sandbox was used after it was closed."""


class SandboxFileError(SandboxError):
    """A workspace file operation failed; the message names the file and the reason."""


class CheckpointError(SandboxError):
    """There is no such checkpoint (the message lists what there is), or none can be made now (it says why)."""


class AuditError(CellblockError):
    """The audit log cannot be written or read, or is none. What would have had to be recorded is not done.

    Attributes:
        tool_calls: the ledger of the execution under way, if there was one, as in ``Execution.tool_calls``.
    """

    tool_calls: tuple[ToolOutcome, ...] = ()


class ApprovalFailed(CellblockError):
    """An approver raised, took too long, or gave something that is no answer. It counts as a refusal."""


class ValueNotPortable(CellblockError, TypeError):
    """A value cannot cross the wall of the sandbox. The message names the type and the path of the part that cannot."""


class ToolError(CellblockError, ValueError):
    """A tool's definition is wrong; the message says what to fix."""


class ToolUnavailable(CellblockError, ConnectionError):
    """Where a tool comes from, such as an MCP server, a Space or the hub, cannot be reached, has died, or is too slow.

    At a tool's call it is raised inside the agent's code, like whatever else the tool raises.
    """


class ServiceError(CellblockError):
    """The orchestrator service cannot do what is asked."""


class ServiceUnavailable(ServiceError):
    """No orchestrator service answers, or the connection to it was lost for longer than the client waits."""


class AccessDenied(ServiceError):
    """The service was given no token, or one that may not do this."""


class Overloaded(ServiceError):
    """The service has no room for this now.

    Attributes:
        retry_after: seconds after which it may be tried again.
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFound(ServiceError):
    """The service has no such sandbox, run or question, or it is somebody else's."""


class StoreError(ServiceError):
    """The service's store cannot be opened, read or written: the message says why. What was to be stored is not."""


class ModelError(CellblockError):
    """The model's endpoint failed. The agent's memory is kept."""


class ModelUnavailable(ModelError):
    """The endpoint is down, too slow, or refuses, and the retries are used up."""


class ModelReplyInvalid(ModelError):
    """The endpoint answered with something that is not a chat completion."""


class AgentError(CellblockError):
    """An agent was put together or used wrongly."""


class AgentInterrupted(AgentError):
    """``interrupt()`` was called during the run."""


class AnswerRefused(AgentError):
    """The steps were used up, and the answer asked for then did not pass ``final_answer_checks``; the memory has it."""
