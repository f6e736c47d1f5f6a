"""Models of any provider that LiteLLM knows. Needs ``pip install 'cellblock[litellm]'``."""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from types import ModuleType
from typing import Any

from orchestrator.errors import ConfigError, ModelError, ModelUnavailable, missing_extra
from orchestrator.models.asked import Asked
from orchestrator.models.chat_request import ChatSettings
from orchestrator.models.completion import ChunkReader, reply_of
from orchestrator.models.failures import NO_CREDIT, reason
from orchestrator.models.model import ModelDelta, ModelReply
from orchestrator.models.retry import RetryPolicy, Transient
from orchestrator.models.sdk import Refusal, Request, SdkModel

TEXT_ONLY = ("ollama", "groq", "cerebras")  # prefixes of providers that take text alone as a message's content
# By the library: that is retry.py's work, and theirs knows no budget.
_NO_RETRIES = {"num_retries": 0, "max_retries": 0}
_REMOVABLE = ("stop", "tool_choice")  # what is left out by itself where LiteLLM knows that the model does not take it


class _LiteLLM(SdkModel):
    """What the two have in common. LiteLLM keeps its connections for each event loop by itself."""

    def __init__(
        self,
        settings: ChatSettings,
        *,
        timeout: float,
        retry: RetryPolicy | bool | None,
        requests_per_minute: float | None,
        secrets: Sequence[Any],
    ) -> None:
        super().__init__(settings.model_id, timeout, retry, requests_per_minute)
        self._settings = settings
        self._secrets = [secret for secret in secrets if isinstance(secret, str)]

    @abstractmethod
    async def _completion(self, request: Request) -> Any:
        """LiteLLM's answer: a completion, or the chunks of one."""

    def _request(self, asked: Asked, without: Collection[str]) -> Request:
        return {"timeout": self._timeout, **_NO_RETRIES, **self._settings.request(asked, without)}

    def _removable(self, request: Request) -> Collection[str]:
        return self._settings.removable(request)

    async def _ask(self, request: Request) -> ModelReply:
        return reply_of(self.model_id, (await self._completion(request)).model_dump(warnings=False), self._secrets)

    async def _stream(self, request: Request) -> AsyncGenerator[ModelDelta, None]:
        reader = ChunkReader(self.model_id, self._secrets)
        async with aclosing(await self._completion(request)) as chunks:
            async for chunk in chunks:
                yield reader.delta(chunk.model_dump(warnings=False))
        if not reader.finished:
            raise Transient("the stream ended in the middle of the reply")

    def _failure(self, error: Exception) -> Refusal | Transient | ModelError:
        """LiteLLM gives each failure the status of HTTP that it stands for, also a broken connection (500)."""
        text = reason(error, self._secrets)
        status = getattr(error, "status_code", None)
        if not isinstance(status, int):
            return ModelUnavailable(f"{self._name}: {text}")
        if _no_credit(error):
            return ModelUnavailable(f"{self._name}: HTTP {status}: {text}")
        return Refusal(status, f"HTTP {status}: {text}", _headers(error))


class LiteLLMModel(_LiteLLM):
    """A model of any provider that LiteLLM knows.

    LiteLLM reports an answer that is no completion like a failure of the server, so it is tried again. Nothing is
    fetched from the network but replies: its list of models is the one in the package (``LITELLM_OFFLINE_MODE`` and
    ``LITELLM_LOCAL_MODEL_COST_MAP`` are set in the environment, unless they are there).

    Args:
        model_id: ``provider/model``, such as ``anthropic/claude-sonnet-4-5``.
        api_base: base URL of the provider, or of a server like it; default as LiteLLM finds it.
        api_key: the key; default the provider's variable, such as ``ANTHROPIC_API_KEY``.
        custom_role_conversions: roles that the model does not know -> those to send in their place.
        flatten_messages_as_text: the model takes text only; pictures are an error. Default: for ollama, groq, cerebras.
        requests_per_minute: at most so many calls, at even intervals; default no limit.
        timeout: seconds for one call from sending the request to the last byte of the reply; in a stream, for each
            piece.
        retry: how often and how long to try again; True for the default policy, False for never.
        parameters: of ``litellm.acompletion``, sent along with every request, such as ``temperature=0``,
            ``drop_params=True`` or ``tool_choice="auto"`` (else ``"required"`` when there are tools).
            ``REMOVE_PARAMETER`` as a value leaves one out.

    Raises:
        ConfigError: litellm is missing; or an argument is wrong.
    """

    def __init__(
        self,
        model_id: str,
        api_base: str | None = None,
        api_key: str | None = None,
        custom_role_conversions: Mapping[str, str] | None = None,
        flatten_messages_as_text: bool | None = None,
        *,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
        retry: RetryPolicy | bool | None = True,
        **parameters: Any,
    ) -> None:
        if flatten_messages_as_text is None:
            flatten_messages_as_text = model_id.startswith(TEXT_ONLY)
        super().__init__(
            ChatSettings(model_id, parameters, custom_role_conversions, flatten_messages_as_text),
            timeout=timeout,
            retry=retry,
            requests_per_minute=requests_per_minute,
            secrets=[api_key],
        )
        self._litellm = _litellm()
        self._server = {name: value for name, value in (("api_base", api_base), ("api_key", api_key)) if value}
        self._refused |= self._untaken()

    async def _completion(self, request: Request) -> Any:
        return await self._litellm.acompletion(**self._server, **request)

    def _untaken(self) -> set[str]:
        """What LiteLLM would refuse to send to this model; it looks that up in the package."""
        taken = self._litellm.get_supported_openai_params(model=self.model_id)
        return set(_REMOVABLE) - set(taken) if taken else set()


class LiteLLMRouterModel(_LiteLLM):
    """A group of deployments behind LiteLLM's ``Router``, which spreads calls over them.

    The router's own retries are off; its fall-backs and cool-downs work as ``client_kwargs`` say.

    Args:
        model_id: the name of a group: the ``model_name`` of entries of ``model_list``.
        model_list: deployments, as the router takes them.
        client_kwargs: for ``litellm.Router``, such as ``routing_strategy`` or ``fallbacks``.
        custom_role_conversions: as of ``LiteLLMModel``, and so are the other arguments.
        flatten_messages_as_text: default: if any deployment of the group is of ollama, groq or cerebras.

    Raises:
        ConfigError: litellm is missing; or an argument is wrong.
    """

    def __init__(
        self,
        model_id: str,
        model_list: Sequence[Mapping[str, Any]],
        client_kwargs: Mapping[str, Any] | None = None,
        custom_role_conversions: Mapping[str, str] | None = None,
        flatten_messages_as_text: bool | None = None,
        *,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
        retry: RetryPolicy | bool | None = True,
        **parameters: Any,
    ) -> None:
        deployments = [entry.get("litellm_params", {}) for entry in model_list if entry.get("model_name") == model_id]
        if not deployments:
            raise ConfigError(f"model {model_id}: no entry of model_list has it as its model_name")
        if flatten_messages_as_text is None:
            flatten_messages_as_text = any(str(made.get("model")).startswith(TEXT_ONLY) for made in deployments)
        super().__init__(
            ChatSettings(model_id, parameters, custom_role_conversions, flatten_messages_as_text),
            timeout=timeout,
            retry=retry,
            requests_per_minute=requests_per_minute,
            secrets=[entry.get("litellm_params", {}).get("api_key") for entry in model_list],
        )
        self._router = self._new_router(model_list, client_kwargs or {})

    async def _completion(self, request: Request) -> Any:
        return await self._router.acompletion(**request)

    def _new_router(self, model_list: Sequence[Mapping[str, Any]], client_kwargs: Mapping[str, Any]) -> Any:
        litellm = _litellm()
        settings = {"model_list": [dict(entry) for entry in model_list], "num_retries": 0, **client_kwargs}
        try:
            return litellm.Router(**settings)
        except Exception as error:  # noqa: BLE001 - it checks its settings in many ways, and has no error of its own
            raise ConfigError(f"{self._name}: {reason(error, self._secrets)}") from None


def _litellm() -> ModuleType:
    """The package, which at its import would fetch a list of prices, and prints advice into the program's output."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_OFFLINE_MODE", "true")
    try:
        import litellm
    except ImportError:
        raise missing_extra("a LiteLLM model", "litellm", "litellm") from None
    litellm.suppress_debug_info = True
    for name in ("LiteLLM", "LiteLLM Router"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:  # otherwise LITELLM_LOG, or the program, says how much is told
            logger.setLevel(logging.ERROR)
    return litellm


def _no_credit(error: Exception) -> bool:
    body = getattr(error, "body", None)
    return isinstance(body, dict) and body.get("code") == NO_CREDIT


def _headers(error: Exception) -> Mapping[str, str]:
    """Those of the provider's answer, or the wait until one of a router's deployments is used again."""
    wait = getattr(error, "cooldown_time", None)
    if isinstance(wait, int | float):
        return {"retry-after": str(wait)}
    given = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", None
    )
    return {str(name).lower(): str(value) for name, value in (given or {}).items()}
