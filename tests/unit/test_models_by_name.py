"""``--model`` and ``CELLBLOCK_MODEL``: one text names the provider and the model."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

import orchestrator
from orchestrator.errors import ConfigError
from orchestrator.models.by_name import PROVIDERS, model_by_name

SETTINGS = {
    "OPENAI_API_KEY": "sk-test",
    "AZURE_OPENAI_ENDPOINT": "https://example.openai.azure.com",
    "AZURE_OPENAI_API_KEY": "k",
    "OPENAI_API_VERSION": "2024-10-21",
    "HF_TOKEN": "hf_test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
}
# Those that run a model themselves have to load one: what is named here is not there.
NEEDS = {"transformers": "transformers", "vllm": "vllm", "mlx": "mlx_lm"}


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("gpt-5-mini", "OpenAIServerModel", "gpt-5-mini"),
        ("openai:gpt-5-mini", "OpenAIServerModel", "gpt-5-mini"),
        ("llama3:8b", "OpenAIServerModel", "llama3:8b"),
        ("openai:llama3:8b", "OpenAIServerModel", "llama3:8b"),
        ("azure:my-deployment", "AzureOpenAIServerModel", "my-deployment"),
        ("litellm:anthropic/claude", "LiteLLMModel", "anthropic/claude"),
        ("hf:Qwen/Qwen3-32B", "InferenceClientModel", "Qwen/Qwen3-32B"),
        ("hf:Qwen/Qwen3-32B:together", "InferenceClientModel", "Qwen/Qwen3-32B:together"),
        ("bedrock:us.amazon.nova-pro-v1:0", "AmazonBedrockModel", "us.amazon.nova-pro-v1:0"),
    ],
)
def test_a_model_is_made_of_its_provider_and_name(text: str, kind: str, name: str) -> None:
    made: Any = model_by_name(text)
    assert type(made) is getattr(orchestrator, kind)
    assert made.model_id == name


def test_every_provider_has_a_class_that_is_public() -> None:
    assert {kind for _, kind in PROVIDERS.values()} <= set(orchestrator.__all__)


@pytest.mark.parametrize("provider", sorted(NEEDS))
def test_a_provider_that_is_not_installed_names_its_extra(provider: str) -> None:
    if find_spec(NEEDS[provider]):
        pytest.skip(f"{provider} is installed")
    with pytest.raises(ConfigError, match=rf"cellblock\[{provider}\]"):
        model_by_name(f"{provider}:some/model")


@pytest.mark.parametrize("text", ["", " ", "hf:", "openai: "])
def test_no_name_is_refused_with_the_providers(text: str) -> None:
    with pytest.raises(ConfigError, match="names no model; write provider:name, with openai, azure"):
        model_by_name(text)


def test_a_key_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        model_by_name("openai:gpt-5-mini")


@pytest.mark.parametrize("provider", ["openai", "azure", "hf", "litellm", "bedrock"])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"timeout": "9"}, "timeout is '9'; it must be seconds, above 0"),
        ({"timeout": 0}, "timeout is 0; it must be seconds, above 0"),
        ({"retry": 5}, "retry is 5; it must be a RetryPolicy"),
        ({"model_id": "again"}, "parameters do not fit: .*model_id"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_model_is_made(provider: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        model_by_name(f"{provider}:m", **given)
