"""What an agent shows of its runs by itself, and how much."""

from __future__ import annotations

from enum import IntEnum

from rich.console import Console

from orchestrator.agents.printer import RunPrinter
from orchestrator.agents.run import AgentEvent, Overheard
from orchestrator.agents.steps import ActionStep
from orchestrator.errors import AgentError
from orchestrator.models import ModelDelta


class LogLevel(IntEnum):
    """``verbosity_level`` of an agent, as in smolagents."""

    OFF = -1  # nothing
    ERROR = 0  # steps that failed
    INFO = 1  # everything that happens
    DEBUG = 2  # and the model's replies word by word, if the agent streams them


class AgentLogger:
    """Shows the events of a run.

    On standard error by default: what a program prints to standard output stays its own.

    Args:
        level: how much; may be assigned later, too.
        console: where to.
    """

    def __init__(self, level: int = LogLevel.INFO, console: Console | None = None) -> None:
        if not isinstance(level, int):
            raise AgentError(f"verbosity_level is {level!r}; it is a LogLevel, or its number, -1 to 2")
        self.level = level
        self._printer = RunPrinter(console or Console(stderr=True), show_deltas=True)

    def show(self, event: AgentEvent) -> None:
        """Shows ``event``, if its kind is shown at this level."""
        if self.level >= _level_of(event):
            self._printer.show(event)


def checked_logger(logger: AgentLogger | None) -> AgentLogger | None:
    """``logger``, if it can show events.

    Raises:
        AgentError: it cannot.
    """
    if logger is not None and not callable(getattr(logger, "show", None)):
        raise AgentError(f"logger: {logger!r} has no show(event); an AgentLogger has")
    return logger


def _level_of(event: AgentEvent) -> LogLevel:
    """From which level on it is shown."""
    while isinstance(event, Overheard):
        event = event.event
    if isinstance(event, ActionStep) and event.error is not None:
        return LogLevel.ERROR
    return LogLevel.DEBUG if isinstance(event, ModelDelta) else LogLevel.INFO
