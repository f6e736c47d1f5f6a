"""What loading an agent would do on this host that whoever wrote its file could misuse. No I/O.

Code that would run, first of all; also that requests with this machine's keys would go where the file says, that an
inner network would be reached, or that templates of prompts could run for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.agents.sharing.registry import MODELS, TOOLS, Entry
from orchestrator.agents.sharing.saved import Made, SavedAgent, SavedTool
from orchestrator.agents.sharing.schema import is_short, shown
from orchestrator.agents.sharing.templates import odd_templates
from orchestrator.config import Limits, parse_size
from orchestrator.errors import ConfigError

MAX_SHOWN = 50  # reasons in one error


def check_trust(saved: SavedAgent, given: Mapping[str, Any], usual: Limits, trusted: bool) -> None:
    """Nothing needs trust, or it is there.

    Args:
        saved: what is to be loaded.
        given: what is used in the place of its parts, by name; the parts that it replaces need no trust.
        usual: the limits of sandboxes on this machine; larger ones have to be trusted.
        trusted: whether that has been said.

    Raises:
        ConfigError: something needs trust; the message lists all of it.
    """
    if trusted is True:
        return
    reasons = list(dict.fromkeys(needs(saved, given, usual)))
    if reasons:
        told = "".join(f"\n- {reason}" for reason in reasons[:MAX_SHOWN])
        more = f"\n- and {len(reasons) - MAX_SHOWN} more" if len(reasons) > MAX_SHOWN else ""
        raise ConfigError(
            "this agent does things on the host, outside of any sandbox, with everything that this process may do:"
            f"{told}{more}\nRead these, and if you trust them, pass trust_remote_code=True"
        )


def needs(saved: SavedAgent, given: Mapping[str, Any], usual: Limits, place: str = "") -> Iterator[str]:
    """What needs trust, in words, as paths in the agent's folder where there are files."""
    if saved.model is not None and "model" not in given:
        for name in _odd_model_arguments(saved.model):
            yield f"{place}agent.json: the model's {name}: {shown(_argument(saved.model, name))}"
    named = {tool.name for tool in given.get("tools") or ()}
    for tool in saved.tools:
        if tool.name not in named:
            yield from _tool_needs(tool, place)
    for part in ("step_callbacks", "final_answer_checks", "compaction"):
        if part not in given:
            for path in _functions(saved, part):
                yield f"{place}agent.json: {part}: {path} is imported and called"
    if "prompt_templates" not in given:
        for name in odd_templates(saved.prompt_templates):
            yield f"{place}prompts.yaml: {shown(name)} is a template that computes"
    if "sandbox" not in given:
        for name in _larger(saved.settings.get("sandbox"), usual):
            yield f"{place}agent.json: sandbox.limits.{name} is larger than usual here"
    if "managed_agents" not in given:
        for_members = {"model": given["model"]} if "model" in given else {}
        for member in saved.members:
            yield from needs(member, for_members, usual, f"{place}managed_agents/{member.name}/")


def _tool_needs(tool: SavedTool, place: str) -> Iterator[str]:
    if tool.code is not None:
        yield f"{place}tools/{tool.name}.py: its code is run"
    if tool.kind is not None:
        for name in sorted(tool.data.keys() - TOOLS[tool.kind].harmless):
            yield f"{place}agent.json: {name} of the tool {tool.name}: {shown(tool.data[name])}"


def _functions(saved: SavedAgent, part: str) -> Sequence[str]:
    match part:
        case "step_callbacks":
            return [one.function for one in saved.step_callbacks]
        case "final_answer_checks":
            return saved.final_answer_checks
        case _:
            return [saved.compaction] if isinstance(saved.compaction, str) else []


def _odd_model_arguments(model: Made) -> list[str]:
    """Those that say more than what is asked of the model."""
    entry = MODELS[model.kind]
    names = sorted({*model.data, *model.removed})
    return names if entry.local else [name for name in names if not _is_harmless(name, model, entry)]


def _is_harmless(name: str, model: Made, entry: Entry) -> bool:
    value = _argument(model, name)
    if name == "model_id":  # some providers take an address there, or what is somebody's in their cloud
        return is_short(value) and "://" not in value and "arn:" not in value
    if isinstance(value, dict):
        return name in entry.harmless and all(isinstance(part, str | int | float) for part in value.values())
    return name in entry.harmless and isinstance(value, str | int | float | None)


def _argument(model: Made, name: str) -> Any:
    return model.data.get(name, "REMOVE_PARAMETER")


def _larger(sandbox: Mapping[str, Any] | None, usual: Limits) -> list[str]:
    asked = (sandbox or {}).get("limits") or {}
    return [name for name, value in asked.items() if _size(value) > _size(getattr(usual, name))]


def _size(value: Any) -> float:
    try:
        return float(parse_size(value)) if isinstance(value, str) else float(value)
    except (ConfigError, OverflowError):  # it will be refused when the limits are made
        return 0.0
