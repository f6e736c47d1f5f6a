"""Models in Azure OpenAI deployments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import openai

from orchestrator.errors import ConfigError
from orchestrator.models.chat_completions import ChatCompletionsModel
from orchestrator.models.chat_request import ChatSettings
from orchestrator.models.endpoint import client_of, credentials_of
from orchestrator.models.retry import RetryPolicy

_TOKENS = frozenset({"azure_ad_token", "azure_ad_token_provider"})  # of Entra ID, in place of a key


class AzureOpenAIServerModel(ChatCompletionsModel):
    """A model in an Azure OpenAI deployment.

    Args:
        model_id: the deployment's name.
        azure_endpoint: such as ``https://example.openai.azure.com``; default ``AZURE_OPENAI_ENDPOINT``.
        api_key: the key; default ``AZURE_OPENAI_API_KEY``. For Entra ID pass ``azure_ad_token`` or
            ``azure_ad_token_provider`` in ``client_kwargs``, or set ``AZURE_OPENAI_AD_TOKEN``.
        api_version: such as ``2024-10-21``; default ``OPENAI_API_VERSION``.
        client_kwargs: further arguments of ``openai.AsyncAzureOpenAI``.
        custom_role_conversions, flatten_messages_as_text, requests_per_minute, timeout, retry, parameters: as
            ``OpenAIServerModel``.

    Raises:
        ConfigError: endpoint, version or key are missing, or an argument is wrong.
    """

    def __init__(
        self,
        model_id: str,
        azure_endpoint: str | None = None,
        api_key: str | None = None,
        api_version: str | None = None,
        *,
        client_kwargs: Mapping[str, Any] | None = None,
        custom_role_conversions: Mapping[str, str] | None = None,
        flatten_messages_as_text: bool = False,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
        retry: RetryPolicy | bool | None = True,
        **parameters: Any,
    ) -> None:
        given = dict(client_kwargs or {})
        self._azure = _needed(model_id, "azure_endpoint", azure_endpoint or given.get("azure_endpoint"))
        version = _needed(model_id, "api_version", api_version or given.get("api_version"))
        secret = _credentials(model_id, api_key, given)
        super().__init__(
            ChatSettings(model_id, parameters, custom_role_conversions, flatten_messages_as_text),
            client_of(
                openai.AsyncAzureOpenAI,
                {"azure_endpoint": self._azure, "api_version": version, "timeout": timeout, **secret},
                given,
            ),
            timeout=timeout,
            retry=retry,
            requests_per_minute=requests_per_minute,
            secrets=credentials_of(secret, given),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_id!r}, azure_endpoint={self._azure!r})"


_VARIABLES: Mapping[str, str] = {"azure_endpoint": "AZURE_OPENAI_ENDPOINT", "api_version": "OPENAI_API_VERSION"}


def _needed(model_id: str, argument: str, given: Any) -> str:
    value = given or os.environ.get(_VARIABLES[argument])
    if not value:
        raise ConfigError(f"model {model_id}: set {_VARIABLES[argument]}, or pass {argument}=")
    return str(value)


def _credentials(model_id: str, api_key: str | None, given: Mapping[str, Any]) -> dict[str, str]:
    """The one credential to send, by its argument; the client refuses two."""
    if api_key:
        return {"api_key": api_key}
    if (_TOKENS | {"api_key"}) & given.keys():
        return {}
    for argument, variable in (("azure_ad_token", "AZURE_OPENAI_AD_TOKEN"), ("api_key", "AZURE_OPENAI_API_KEY")):
        if value := os.environ.get(variable):
            return {argument: value}
    raise ConfigError(f"model {model_id}: set AZURE_OPENAI_API_KEY, or pass api_key=")


AzureOpenAIModel = AzureOpenAIServerModel
