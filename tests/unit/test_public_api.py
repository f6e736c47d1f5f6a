"""What ``import orchestrator`` offers, and what it costs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator

EXPECTED = [
    *("AccessDenied", "ActionStep", "AgentAudio", "AgentError", "AgentImage", "AgentInterrupted", "AgentLogger"),
    *("AgentMemory", "AmazonBedrockModel", "AmazonBedrockServerModel", "AnswerRefused", "ApiWebSearchTool"),
    *("ApprovalFailed", "AsyncClient", "AsyncSandbox", "AuditError", "AzureOpenAIModel", "AzureOpenAIServerModel"),
    *("Best", "CellblockError", "ChatMessage", "Checkpoint", "CheckpointError", "Client", "CodeAction", "CodeAgent"),
    *("Compacted", "Config", "ConfigError", "DuckDuckGoSearchTool", "Ending", "EngineError", "EnginePermission"),
    *("EngineUnavailable", "Execution", "ExecutionError", "ExecutionRequest", "Files", "FinalAnswerStep"),
    *("FinalAnswerTool", "Finished", "GoogleSearchTool", "GradioUI", "HfApiModel", "ImageChanged", "ImageMissing"),
    *("InferenceClientModel", "IsolationError", "Limits", "LiteLLMModel", "LiteLLMRouterModel", "LogLevel"),
    *("MCPClient", "MLXModel", "ModelDelta", "ModelError", "ModelReply", "ModelReplyInvalid", "ModelUnavailable"),
    *("MultiStepAgent", "NDArray", "NotFound", "NoteStep", "Observation", "Opaque", "OpenAIModel"),
    *("OpenAIServerModel", "OutcomeUnknown", "Output", "Overheard", "Overloaded", "PlanningStep", "PromptTemplates"),
    *("ProtocolViolation", "REMOVE_PARAMETER", "Rebuilt", "RetryPolicy", "Rollback", "RunResult"),
    *("RuntimeUnavailable", "Sandbox", "SandboxClosed", "SandboxDied", "SandboxError", "SandboxFileError"),
    *("SandboxSettings", "SandboxStartError", "ScriptedModel", "ServiceError", "ServiceUnavailable", "SettingIgnored"),
    *("ShortenOldest", "State", "Status", "StepError", "StepStarted", "StoreError", "SummariseOldest"),
    *("SystemPromptStep", "Table", "TaskStep", "Timing", "TokenUsage", "TooManySandboxes", "Tool", "ToolCall"),
    *("ToolCallRequest", "ToolCallingAgent", "ToolCollection", "ToolError", "ToolOutcome", "ToolUnavailable"),
    *("TransformersModel", "UserInputTool", "VLLMModel", "ValueNotPortable", "Verdict", "VisitWebpageTool"),
    *("WebSearchTool", "WikipediaSearchTool", "load_tool", "tool"),
]
ALIASES = {
    "AmazonBedrockServerModel": "AmazonBedrockModel",
    "AzureOpenAIModel": "AzureOpenAIServerModel",
    "HfApiModel": "InferenceClientModel",
    "OpenAIModel": "OpenAIServerModel",
}
CONSTANTS = ("REMOVE_PARAMETER",)
HEAVY = ("docker", "grpc", "google.protobuf", "openai", "rich", "numpy", "executor_image", "asyncio")


def loaded_after(code: str) -> set[str]:
    """The top-level modules of a fresh interpreter that ran ``code``."""
    program = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_the_public_names_are_exactly_these() -> None:
    assert orchestrator.__all__ == EXPECTED


@pytest.mark.parametrize("name", [name for name in EXPECTED if name not in CONSTANTS])
def test_a_public_name_can_be_imported_and_is_documented(name: str) -> None:
    thing = getattr(orchestrator, name)
    assert thing.__name__ == ALIASES.get(name, name)
    doc = inspect.getdoc(thing) or ""
    assert len(doc) > 15
    assert not doc.startswith(f"{name}(")  # what a dataclass writes where nobody did
    assert thing.__module__.partition(".")[0] == "orchestrator"


def test_type_checkers_and_editors_know_the_same_names_from_the_same_places() -> None:
    """``__getattr__`` alone would make each of them anything to them, misspelled ones too."""
    stub = Path(orchestrator.__file__).with_suffix(".pyi")
    known: dict[str, str | None] = {}
    for line in ast.parse(stub.read_text()).body[1:]:
        assert isinstance(line, ast.ImportFrom)
        (only,) = line.names
        assert only.name == only.asname  # without the second name it would be the stub's own
        known[only.name] = line.module
    assert known == orchestrator._HOMES


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
