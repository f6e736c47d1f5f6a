"""``cellblock run``: an agent on a task, shown as it works, and stopped in good order by Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, get_args

from orchestrator.agents import (
    ActionStep,
    AgentEvent,
    CodeAgent,
    LogLevel,
    MultiStepAgent,
    RunPrinter,
    SandboxSettings,
    ToolCallingAgent,
)
from orchestrator.agents.given import checked_task
from orchestrator.asking import TerminalApprover, What
from orchestrator.config import Config, Limits
from orchestrator.errors import AgentError, AgentInterrupted, ConfigError, ToolError
from orchestrator.json_events import as_line
from orchestrator.keyboard import PROCESS_FLOOR
from orchestrator.models.by_name import PROVIDERS, model_by_name
from orchestrator.tools import Tool, UserInputTool, base_tools
from orchestrator.tools.by_name import mcp_server_by_name, tool_by_name

INTERRUPTED = 130  # as a shell reports an interrupted program
_BASE_TOOLS = frozenset(base_tools())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``cellblock run`` besides those of its sandbox."""
    parser.add_argument("task")
    parser.add_argument(
        "--model",
        metavar="[PROVIDER:]NAME",
        help=f"default: the setting, CELLBLOCK_MODEL; providers: {', '.join(PROVIDERS)} (openai if none is named)",
    )
    parser.add_argument(
        "--agent", choices=("code", "tool_calling"), default="code", help="acts by Python code or by tool calls"
    )
    parser.add_argument(
        "--tools",
        default="",
        metavar="NAME,...",
        help=f"functions to call, on this host: {', '.join(sorted(_BASE_TOOLS))}, MODULE:NAME of your own, "
        "or OWNER/SPACE of the Hugging Face Hub",
    )
    parser.add_argument(
        "--mcp",
        action="append",
        default=[],
        metavar="URL|COMMAND",
        help="the tools of an MCP server: its URL, or the command that starts it on this host; may be repeated",
    )
    parser.add_argument("--planning", type=_positive, metavar="N", help="make a plan, and a new one every N steps")
    parser.add_argument("--max-steps", type=_positive, default=20, metavar="N")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines")
    parser.add_argument(
        "--approve",
        choices=get_args(What),
        help="ask at the terminal before tools are called, before code is run (executions), or both (ask)",
    )


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return number


def run(options: argparse.Namespace, config: Config, limits: Limits, imports: Sequence[str]) -> int:
    """Works on the task; gives the exit code."""
    approver = TerminalApprover(options.approve) if options.approve else None
    if approver and not approver.has_terminal:
        raise ConfigError("--approve needs a terminal: somebody has to see the question and answer it")
    show = _printer(options)
    if options.agent == "tool_calling":
        _check_no_sandbox(options)
    with _tools(options) as tools:
        settings = SandboxSettings(limits=limits, timeout=options.timeout, config=config)
        try:
            checked_task(options.task)
            made = _agent(options, config, settings, imports, tools, approver)
        except (AgentError, ToolError) as error:  # what was typed does not fit together
            raise ConfigError(str(error)) from None
        with made as agent:
            return _watched(agent, options.task, show)


def _check_no_sandbox(options: argparse.Namespace) -> None:
    for option in ("imports", "timeout", "memory"):
        if getattr(options, option) not in ("", None):
            raise ConfigError(f"--{option} is for code: a tool_calling agent writes none")


def _agent(
    options: argparse.Namespace,
    config: Config,
    settings: SandboxSettings,
    imports: Sequence[str],
    tools: Sequence[Tool | Callable[..., Any]],
    approver: TerminalApprover | None,
) -> MultiStepAgent:
    more: dict[str, Any] = {
        "max_steps": options.max_steps,
        "planning_interval": options.planning,
        "verbosity_level": LogLevel.OFF,
        "approve": approver,
    }
    model = model_by_name(options.model or config.model)
    if options.agent == "tool_calling":
        return ToolCallingAgent(tools, model, **more)
    return CodeAgent(tools, model, additional_authorized_imports=imports, sandbox=settings, **more)


def _printer(options: argparse.Namespace) -> Callable[[AgentEvent], None]:
    if options.json:
        return lambda event: print(as_line(event), flush=True)
    return RunPrinter(show_code=options.approve not in ("ask", "executions"), floor=PROCESS_FLOOR).show


def _watched(agent: MultiStepAgent, task: str, show: Callable[[AgentEvent], None]) -> int:
    try:
        with _interruptible(agent) as was_asked:
            for event in agent.run(task, stream=True):
                if was_asked.is_set():  # perhaps before the run had begun, when there was nothing to interrupt
                    agent.interrupt()
                show(event)
    except AgentInterrupted:
        print(_summary(agent), file=sys.stderr)
        return INTERRUPTED
    return 0


@contextlib.contextmanager
def _interruptible(agent: MultiStepAgent) -> Iterator[threading.Event]:
    """The first Ctrl-C interrupts the agent, the second ends the program; what it owns is closed either way.

    The event is set by the first.
    """
    was_asked = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\ncellblock: interrupting; press Ctrl-C again to quit", file=sys.stderr)
        was_asked.set()
        agent.interrupt()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield was_asked
    finally:
        signal.signal(signal.SIGINT, before)


def _summary(agent: MultiStepAgent) -> str:
    """What was done until the interruption."""
    steps = [step for step in agent.memory.steps if isinstance(step, ActionStep)]
    usages = [step.token_usage for step in steps if step.token_usage]
    tokens = f", {sum(usage.total_tokens for usage in usages):,} tokens" if usages else ""
    failed = sum(step.error is not None for step in steps)
    done = "1 step" if len(steps) == 1 else f"{len(steps)} steps"
    return f"cellblock: interrupted after {done} ({failed} failed{tokens}); no answer yet"


# ------------------------------------------------------------------------------------------------------------ tools


@contextlib.contextmanager
def _tools(options: argparse.Namespace) -> Iterator[list[Tool | Callable[..., Any]]]:
    tools = [_tool(name, options.json) for name in names(options.tools)]
    if not options.mcp:
        yield tools
        return
    from orchestrator.tools.mcp import MCPClient  # needs an extra

    with MCPClient([_server(text) for text in options.mcp]) as found:
        yield [*tools, *found]


def _tool(name: str, as_json: bool) -> Tool | Callable[..., Any]:
    """A question would be no line of JSON: then it is shown beside these."""
    if name == "user_input" and as_json:
        return UserInputTool(screen=sys.stderr)
    return tool_by_name(name, Path.cwd())


def _server(text: str) -> Any:
    try:
        return mcp_server_by_name(text)
    except ConfigError as error:
        raise ConfigError(f"--mcp: {error}") from None


def names(text: str) -> list[str]:
    """The parts of a text with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]
