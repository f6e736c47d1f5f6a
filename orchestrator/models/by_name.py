"""A model by one text, as a command line takes it: ``provider:name``, or the name alone for an OpenAI endpoint."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from orchestrator.errors import ConfigError
from orchestrator.models.model import Model

PROVIDERS: Mapping[str, tuple[str, str]] = {
    "openai": ("orchestrator.models.openai", "OpenAIServerModel"),
    "azure": ("orchestrator.models.azure", "AzureOpenAIServerModel"),
    "litellm": ("orchestrator.models.litellm", "LiteLLMModel"),
    "hf": ("orchestrator.models.inference_client", "InferenceClientModel"),
    "bedrock": ("orchestrator.models.bedrock", "AmazonBedrockModel"),
    "transformers": ("orchestrator.models.transformers", "TransformersModel"),
    "vllm": ("orchestrator.models.vllm", "VLLMModel"),
    "mlx": ("orchestrator.models.mlx", "MLXModel"),
}

# What each provider's model calls the address of its server and its key, where it takes one.
_BASES = {"openai": "api_base", "azure": "azure_endpoint", "litellm": "api_base", "hf": "base_url"}
_KEYS = frozenset({"openai", "azure", "litellm", "hf"})
# These load weights into this process.
LOCAL = frozenset({"transformers", "vllm", "mlx"})


def provider_of(text: str) -> tuple[str, str]:
    """The provider and the model's name in ``text``. No provider's name at its beginning means ``openai``."""
    provider, colon, name = text.partition(":")
    return (provider, name) if colon and provider in PROVIDERS else ("openai", text)


def model_by_name(text: str, *, api_base: str = "", api_key: str = "", **parameters: Any) -> Model:
    """The model that ``text`` names.

    A text whose beginning is no provider's name is a name as a whole: ``llama3:8b``.

    Args:
        text: ``provider:name``, or a name alone.
        api_base: address of the server, whatever the provider's model calls it; empty: as that says, perhaps from the
            environment.
        api_key: the key; empty: the same.
        parameters: further arguments of the provider's model, and what it sends along with each request.

    Raises:
        ConfigError: no name, a key is missing, an argument does not fit, or its extra is not installed.
    """
    provider, name = provider_of(text)
    if not name.strip():
        raise ConfigError(f"model {text!r} names no model; write provider:name, with {', '.join(PROVIDERS)}")
    if api_base:
        if provider not in _BASES:
            raise ConfigError(f"api_base: models of {provider} have no address")
        parameters[_BASES[provider]] = api_base
    if api_key:
        if provider not in _KEYS:
            raise ConfigError(f"api_key: models of {provider} take no key")
        parameters["api_key"] = api_key
    module, kind = PROVIDERS[provider]
    try:
        return cast(Model, getattr(importlib.import_module(module), kind)(name, **parameters))
    except TypeError as error:  # a parameter that its class has in another form
        raise ConfigError(f"model {text!r}: parameters do not fit: {error}") from None
