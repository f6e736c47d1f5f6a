"""Models behind an OpenAI-compatible ``/v1/chat/completions`` endpoint: OpenAI, vLLM, Ollama, llama.cpp, others."""

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


class OpenAIServerModel(ChatCompletionsModel):
    """A model on an OpenAI-compatible server.

    Args:
        model_id: the model's name on that server.
        api_base: base URL, such as ``http://127.0.0.1:8000/v1``; default ``OPENAI_BASE_URL``, else OpenAI's.
        api_key: the key; default ``OPENAI_API_KEY`` (sent to ``api_base`` too). A server of your own may need none.
        organization: OpenAI organisation to bill.
        project: OpenAI project to bill.
        client_kwargs: further arguments of ``openai.AsyncOpenAI``, such as ``default_headers``.
        custom_role_conversions: roles that the server does not know -> those to send in their place.
        flatten_messages_as_text: the server takes text only; pictures are an error.
        requests_per_minute: at most so many calls, at even intervals; default no limit.
        timeout: seconds for one call from sending the request to the last byte of the reply; in a stream, for each
            piece.
        retry: how often and how long to try again; True for the default policy, False for never.
        parameters: sent along with every request, such as ``temperature=0``, ``max_completion_tokens=4000`` or
            ``tool_choice="auto"`` (else ``"required"`` when there are tools). ``REMOVE_PARAMETER`` as a value leaves
            one out.

    Raises:
        ConfigError: no key, and no server that might need none; or an argument is wrong.
    """

    def __init__(
        self,
        model_id: str,
        api_base: str | None = None,
        api_key: str | None = None,
        *,
        organization: str | None = None,
        project: str | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        custom_role_conversions: Mapping[str, str] | None = None,
        flatten_messages_as_text: bool = False,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
        retry: RetryPolicy | bool | None = True,
        **parameters: Any,
    ) -> None:
        self._base = api_base or os.environ.get("OPENAI_BASE_URL") or None
        key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        given = client_kwargs or {}
        if not key and self._base is None and not {"api_key", "base_url"} & given.keys():
            raise ConfigError(f"model {model_id}: set OPENAI_API_KEY, or pass api_key= (or api_base= of a server)")
        arguments = {
            "api_key": key or "none-needed",
            "base_url": self._base,
            "organization": organization,
            "project": project,
            "timeout": timeout,
        }
        super().__init__(
            ChatSettings(model_id, parameters, custom_role_conversions, flatten_messages_as_text),
            client_of(openai.AsyncOpenAI, arguments, client_kwargs),
            timeout=timeout,
            retry=retry,
            requests_per_minute=requests_per_minute,
            secrets=credentials_of({"api_key": key}, given),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_id!r}, api_base={self._base!r})"


OpenAIModel = OpenAIServerModel
