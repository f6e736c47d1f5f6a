"""What ``import orchestrator`` offers, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import orchestrator

EXPECTED = [
    *("ActionStep", "AgentMemory", "AsyncSandbox", "Best", "CellblockError", "ChatMessage", "Checkpoint"),
    *("CodeAgent", "Config", "Ending", "Execution", "ExecutionError", "ExecutionRequest", "Files", "FinalAnswerStep"),
    *("Finished", "Limits"),
    *("MultiStepAgent", "NDArray", "Opaque", "OpenAIModel", "OpenAIServerModel", "Output", "Rollback"),
    *("RunResult", "Sandbox", "SandboxSettings", "ScriptedModel", "State", "Status", "SystemPromptStep"),
    *("TaskStep", "Tool", "ToolCall", "ToolCallRequest", "ToolOutcome", "Verdict", "tool"),
]
HEAVY = ("docker", "grpc", "google.protobuf", "openai", "rich", "numpy", "executor_image", "asyncio")


def loaded_after(code: str) -> set[str]:
    """The top-level modules of a fresh interpreter that ran ``code``."""
    program = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_the_public_names_are_exactly_these() -> None:
    assert orchestrator.__all__ == EXPECTED


@pytest.mark.parametrize("name", EXPECTED)
def test_a_public_name_can_be_imported_and_is_documented(name: str) -> None:
    thing = getattr(orchestrator, name)
    assert thing.__name__ in (name, "OpenAIServerModel")
    doc = inspect.getdoc(thing) or ""
    assert len(doc) > 15
    assert not doc.startswith(f"{name}(")  # what a dataclass writes where nobody did
    assert thing.__module__.partition(".")[0] == "orchestrator"


def test_a_star_import_gives_the_public_names() -> None:
    namespace: dict[str, object] = {}
    exec("from orchestrator import *", namespace)
    assert set(EXPECTED) <= set(namespace)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'orchestrator' has no attribute 'Nothing'"):
        _ = orchestrator.Nothing
    assert not hasattr(orchestrator, "__wrapped__")


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import orchestrator") & set(HEAVY)


def test_settings_errors_and_events_load_nothing_heavy() -> None:
    code = "from orchestrator import Config, CellblockError, Execution, Limits, Status\nConfig()"
    assert not loaded_after(code) & set(HEAVY)


def test_the_sandbox_does_not_load_a_models_client_nor_a_model_the_engine() -> None:
    assert not loaded_after("from orchestrator import Sandbox") & {"openai", "rich", "numpy", "orchestrator.agents"}
    assert not loaded_after("from orchestrator import ScriptedModel, tool") & {"docker", "grpc", "numpy"}


def test_every_error_has_one_root() -> None:
    from orchestrator import errors

    found = [thing for thing in vars(errors).values() if isinstance(thing, type)]
    assert all(issubclass(thing, orchestrator.CellblockError) and thing.__doc__ for thing in found)
    assert all(thing.__name__ in (errors.__doc__ or "") for thing in found)
