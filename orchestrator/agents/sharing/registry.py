"""What can be named in a file, each by its class's name: nothing that is loaded says where to import from."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import AgentError
from orchestrator.models.by_name import PROVIDERS

_MODELS = "orchestrator.models"
_BUILTIN = "orchestrator.tools.builtin"


@dataclass(frozen=True, slots=True)
class Entry:
    """A class that files may name.

    Attributes:
        module: where it is.
        name: what it is called there.
        keys: arguments that are credentials. They are never saved; the environment of whoever loads has others.
        harmless: arguments that a file may set without being trusted: they change neither where requests go, nor what
            is sent along, nor what may be reached. ``model_id`` has rules of its own.
        local: what is named is fetched and run in this process.
        extra: of this package, which it needs.
    """

    module: str
    name: str
    keys: frozenset[str] = frozenset()
    harmless: frozenset[str] = frozenset()
    local: bool = False
    extra: str = ""

    def load(self) -> Any:
        """The class itself."""
        return getattr(importlib.import_module(self.module), self.name)


_KEYS = frozenset({"api_key", "token"})
_HARMLESS = frozenset(
    {
        "custom_role_conversions",
        "flatten_messages_as_text",
        "frequency_penalty",
        "max_completion_tokens",
        "max_tokens",
        "model_id",
        "presence_penalty",
        "provider",  # of Hugging Face's: one of a list that its library has
        "reasoning_effort",
        "requests_per_minute",
        "retry",
        "seed",
        "temperature",
        "timeout",
        "top_p",
    }
)
_LOCAL = frozenset({"transformers", "vllm", "mlx"})
_NO_EXTRA = frozenset({"openai", "azure"})

MODELS: Mapping[str, Entry] = {
    name: Entry(module, name, _KEYS, _HARMLESS, provider in _LOCAL, "" if provider in _NO_EXTRA else provider)
    for provider, (module, name) in PROVIDERS.items()
} | {"LiteLLMRouterModel": Entry(f"{_MODELS}.litellm", "LiteLLMRouterModel", _KEYS, _HARMLESS, extra="litellm")}
OTHER_NAMES: Mapping[str, str] = {
    "AmazonBedrockServerModel": "AmazonBedrockModel",
    "AzureOpenAIModel": "AzureOpenAIServerModel",
    "HfApiModel": "InferenceClientModel",
    "OpenAIModel": "OpenAIServerModel",
}

_KEY = frozenset({"api_key"})
_SEARCH = frozenset({"max_results", "rate_limit"})
_PAGES = frozenset({"max_output_length"})
TOOLS: Mapping[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(f"{_BUILTIN}.user_input", "UserInputTool"),
        Entry(f"{_BUILTIN}.visit_webpage", "VisitWebpageTool", harmless=_PAGES, extra="search"),
        Entry(f"{_BUILTIN}.web_search", "WebSearchTool", _KEY, _SEARCH | {"engine"}, extra="search"),
        Entry(f"{_BUILTIN}.web_search", "DuckDuckGoSearchTool", harmless=_SEARCH, extra="search"),
        Entry(f"{_BUILTIN}.web_search", "ApiWebSearchTool", _KEY, _SEARCH),
        Entry(f"{_BUILTIN}.web_search", "GoogleSearchTool", _KEY, frozenset({"max_results", "provider"})),
        Entry(
            f"{_BUILTIN}.wikipedia_search",
            "WikipediaSearchTool",
            harmless=frozenset({"user_agent", "language", "content_type", "extract_format"}),
        ),
    )
}
COMPACTIONS: Mapping[str, Entry] = {
    name: Entry("orchestrator.agents.compaction", name) for name in ("ShortenOldest", "SummariseOldest")
}
AGENTS: Mapping[str, Entry] = {
    "CodeAgent": Entry("orchestrator.agents.code", "CodeAgent"),
    "ToolCallingAgent": Entry("orchestrator.agents.tool_calling", "ToolCallingAgent"),
}


def name_of(thing: object, registry: Mapping[str, Entry]) -> str | None:
    """By which name its class is in ``registry``; None for any other, a class that builds on one of them included."""
    kind = type(thing)
    entry = registry.get(kind.__name__)
    return entry.name if entry is not None and kind.__module__ == entry.module else None


def entry_of(name: str, registry: Mapping[str, Entry], what: str) -> Entry:
    """The class of that name.

    Raises:
        AgentError: there is none.
    """
    if name not in registry:
        raise AgentError(f"{what}: {name!r} is none of {', '.join(registry)}")
    return registry[name]
