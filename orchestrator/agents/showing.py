"""Shows what is there already: a past run, from memory; an agent and its team, as a tree. All text is sanitised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from orchestrator.agents.memory import AgentMemory
from orchestrator.agents.observation import truncate
from orchestrator.agents.parsing import CodeAction, CodeTags, extract_code
from orchestrator.agents.printer import MAX_SHOWN, RunPrinter
from orchestrator.agents.run import AgentEvent, StepStarted
from orchestrator.agents.steps import ActionStep, FinalAnswerStep, MemoryStep, SystemPromptStep
from orchestrator.agents.structured import structured_action
from orchestrator.events import Finished, Output, ToolCall
from orchestrator.sanitise import one_line, sanitise
from orchestrator.tools import Tool

if TYPE_CHECKING:
    from orchestrator.agents.loop import MultiStepAgent

MAX_LINE = 120  # characters of a description in the tree
MAX_DEPTH = 20  # levels of teams within teams: more is an agent that is a member of its own team


class Showable:
    """An agent that can be shown."""

    memory: AgentMemory

    def replay(self, detailed: bool = False, console: Console | None = None) -> None:
        """Prints what happened so far again, from memory.

        Args:
            detailed: also what the model is shown of each step.
            console: where to; default standard output.
        """
        replay(self.memory, console or Console(), detailed=detailed)

    def visualize(self, console: Console | None = None) -> None:
        """Prints a tree of the agent: its model, imports, tools with their arguments, and its team."""
        (console or Console()).print(agent_tree(cast("MultiStepAgent", self)))


def replay(memory: AgentMemory, console: Console, *, detailed: bool) -> None:
    """Prints every run in ``memory``; ``detailed`` adds what the model is shown of each step."""
    printer = RunPrinter(console)
    for step in memory.all_steps():
        for event in events_of(step):
            printer.show(event)
        if detailed:
            for message in step.to_messages():
                console.print(_message(message.role, message.content, len(message.images)))


def events_of(step: MemoryStep) -> Iterator[AgentEvent]:
    """What was streamed when the step was made, as far as the memory has it. It keeps no order of output streams."""
    if isinstance(step, SystemPromptStep):
        return
    if not isinstance(step, ActionStep):
        yield step
        return
    yield StepStarted(step.step_number, 0)
    if step.code_action is not None:
        yield CodeAction(step.code_action, _thought(step))
    for number, result in enumerate(step.tool_calls, 1):
        call = result.call
        yield ToolCall(number, call.name, (), call.arguments if isinstance(call.arguments, dict) else {})
        if result.failed:  # the others are shown with the step
            yield Output("stderr", f"{result.text}\n")
    if step.execution is not None:
        if step.execution.logs.stdout:
            yield Output("stdout", step.execution.logs.stdout)
        if step.execution.logs.stderr:
            yield Output("stderr", step.execution.logs.stderr)
        yield Finished(step.execution)
    yield step
    if step.is_final_answer:
        yield FinalAnswerStep(step.action_output)


def _thought(step: ActionStep) -> str:
    """The model's words before its code, whichever way the agent that made the step had it written."""
    tags = step.code_tags or CodeTags()
    for read in (extract_code, structured_action):
        action = read(step.model_output, tags)
        if isinstance(action, CodeAction) and action.code == step.code_action:
            return action.thought
    return ""


def _message(role: str, content: str, images: int) -> Panel:
    pictures = f"\n({images} pictures)" if images else ""
    text = Text(sanitise(truncate(content, MAX_SHOWN)) + pictures, "dim")
    return Panel(text, title=f"As the model is shown it: {role}", title_align="left", border_style="dim")


def agent_tree(agent: MultiStepAgent, depth: int = 0) -> Tree:
    """The agent's name, model, imports, tools and team, and the same of each member."""
    title = f"{type(agent).__name__} | {_model_name(agent.model)}"
    tree = Tree(Text(f"{agent.name} | {title}" if agent.name else title, "bold cyan"))
    if agent.description:
        tree.add(Text(f"Description: {one_line(agent.description, MAX_LINE)}"))
    imports = getattr(agent, "authorized_imports", None)
    if imports is not None:
        tree.add(Text(f"Authorized imports: {', '.join(imports) or 'the default ones'}"))
    if agent.tools:
        tree.add(Text("Tools", "bold")).add(_tools(agent.tools))
    if agent.managed_agents:
        team = tree.add(Text("Managed agents", "bold"))
        for member in agent.managed_agents.values():
            team.add(agent_tree(member, depth + 1) if depth < MAX_DEPTH else Text("…"))
    return tree


def _model_name(model: Any) -> str:
    name = getattr(model, "model_id", None)
    return f"{type(model).__name__} {name}" if isinstance(name, str) else type(model).__name__


def _tools(tools: Mapping[str, Tool]) -> Table:
    table = Table("Name", "Description", "Arguments", show_lines=True)
    for name, tool in tools.items():
        table.add_row(Text(name), Text(one_line(tool.description, MAX_LINE)), Text("\n".join(_arguments(tool))))
    return table


def _arguments(tool: Tool) -> Iterator[str]:
    required = tool.parameters.get("required", ())
    for name, schema in tool.inputs.items():
        kind = schema.get("type", "any")
        optional = " (may be left out)" if name not in required else ""
        yield f"{name}: {kind}{optional}: {one_line(str(schema.get('description', '')), MAX_LINE)}"
