"""Models of Hugging Face: its inference providers, its endpoints, and servers of one's own that it runs on.

Needs ``pip install 'cellblock[hf]'``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError, ModelError, ModelReplyInvalid, ModelUnavailable, missing_extra
from orchestrator.models.asked import Asked
from orchestrator.models.chat_request import ChatSettings
from orchestrator.models.completion import ChunkReader, reply_of
from orchestrator.models.failures import reason
from orchestrator.models.model import ModelDelta, ModelReply
from orchestrator.models.retry import RetryPolicy, Transient
from orchestrator.models.sdk import Refusal, Request, SdkModel

_ENDPOINT = "HF_INFERENCE_ENDPOINT"
_HOSTS = ("huggingface.co", "hf.co", "huggingface.cloud")  # and those below them: its router, dedicated endpoints
_NO_TOKEN = "none"  # noqa: S105 - what is sent instead of one that the library would find by itself


class InferenceClientModel(SdkModel):
    """A model that huggingface_hub's ``AsyncInferenceClient`` reaches.

    Without ``provider`` and ``base_url`` it is asked of Hugging Face's router, which picks a provider. If the
    environment has ``HF_INFERENCE_ENDPOINT``, it is asked there instead, as with ``base_url``: with
    ``HF_INFERENCE_ENDPOINT=http://127.0.0.1:8080``, ``HfApiModel()`` uses a server of your own. (The library itself
    heeds that variable in one call, which is not the chat's; ``HF_ENDPOINT`` is the hub's address, not a model's.)
    The library's telemetry is off, unless the environment says otherwise (``HF_HUB_DISABLE_TELEMETRY``).

    Args:
        model_id: the model's name on the hub, or the URL of an endpoint.
        provider: who runs the model, such as ``"together"``; default: the router picks.
        token: of Hugging Face, or (with ``provider``) of the provider; default ``HF_TOKEN``, else that of
            ``hf auth login``. It is sent to ``base_url`` too; the default only if that is Hugging Face's. A server of
            your own may need none.
        timeout: seconds for one call from sending the request to the last byte of the reply; in a stream, for each
            piece.
        client_kwargs: further arguments of ``AsyncInferenceClient``, such as ``headers``.
        custom_role_conversions: roles that the model does not know -> those to send in their place.
        api_key: another name of ``token``.
        bill_to: the organisation to bill.
        base_url: of an endpoint; ``/v1/chat/completions`` is added where it is missing. To such an endpoint the library
            writes a JSON schema in the form of text-generation-inference; for servers of your own that want OpenAI's,
            there is ``OpenAIServerModel``.
        flatten_messages_as_text: the model takes text only; pictures are an error.
        requests_per_minute: at most so many calls, at even intervals; default no limit.
        retry: how often and how long to try again; True for the default policy, False for never.
        parameters: sent along with every request, such as ``temperature=0``, ``max_tokens=4000`` or
            ``tool_choice="auto"`` (else ``"required"`` when there are tools). ``REMOVE_PARAMETER`` as a value leaves
            one out.

    Raises:
        ConfigError: huggingface_hub is missing; there is no token, and no server that might need none; or an argument
            is wrong.
    """

    def __init__(
        self,
        model_id: str = "Qwen/Qwen3-Next-80B-A3B-Thinking",
        provider: str | None = None,
        token: str | None = None,
        timeout: float = 120.0,
        client_kwargs: Mapping[str, Any] | None = None,
        custom_role_conversions: Mapping[str, str] | None = None,
        api_key: str | None = None,
        bill_to: str | None = None,
        base_url: str | None = None,
        *,
        flatten_messages_as_text: bool = False,
        requests_per_minute: float | None = None,
        retry: RetryPolicy | bool | None = True,
        **parameters: Any,
    ) -> None:
        super().__init__(model_id, timeout, retry, requests_per_minute)
        if token and api_key:
            raise ConfigError(f"{self._name}: token= and api_key= are the same; give one of them")
        url = model_id if _is_url(model_id) else None
        self._base = base_url or url or (os.environ.get(_ENDPOINT) if provider is None else None) or None
        self._provider = provider
        found = _found_token()
        self._token = token or api_key or (found if self._base is None or _is_of_hugging_face(self._base) else None)
        if not self._token and self._base is None:
            raise ConfigError(f"{self._name}: set HF_TOKEN, or pass token= (or base_url= of a server)")
        self._settings = ChatSettings(model_id, parameters, custom_role_conversions, flatten_messages_as_text)
        self._arguments = {
            **({"base_url": self._base} if self._base else {"provider": provider}),
            "token": self._token or (_NO_TOKEN if found else None),
            "timeout": timeout,
            "bill_to": bill_to,
            **(client_kwargs or {}),
        }
        self._checked = False

    def _request(self, asked: Asked, without: Collection[str]) -> Request:
        return self._settings.request(asked, without)

    def _removable(self, request: Request) -> Collection[str]:
        return self._settings.removable(request)

    async def _ask(self, request: Request) -> ModelReply:
        async with await self._client() as client:
            return reply_of(self.model_id, await self._chat(client, request), [self._token])

    async def _stream(self, request: Request) -> AsyncGenerator[ModelDelta, None]:
        reader = ChunkReader(self.model_id, [self._token])
        async with await self._client() as client, aclosing(await self._chat(client, request)) as chunks:
            async for chunk in chunks:
                yield reader.delta(chunk)
        if not reader.finished:
            raise Transient("the stream ended in the middle of the reply")

    async def _client(self) -> Any:
        """A client for one call: it holds on to the connection of each stream until it is closed itself."""
        from huggingface_hub import AsyncInferenceClient

        if not self._checked:
            await asyncio.to_thread(self._check)
            self._checked = True
        return AsyncInferenceClient(**self._arguments)

    async def _chat(self, client: Any, request: Request) -> Any:
        named = {name: request[name] for name in ("messages", "stream") if name in request}
        model = None if _is_url(request["model"]) else request["model"]
        # extra_body: the method has arguments for some fields of a request only, and does the same with those.
        rest = {name: value for name, value in request.items() if name not in {*named, "model"}}
        return await client.chat_completion(model=model, **named, extra_body=rest)

    def _check(self) -> None:
        """Whether the provider has the model, and by which name. The client looks it up too, but would block the loop.

        It remembers the answer.
        """
        from huggingface_hub.inference._providers import get_provider_helper

        model = self._base or self.model_id
        try:
            helper = get_provider_helper(self._provider, task="conversational", model=model)  # type: ignore[arg-type]
            helper.prepare_request(inputs=[], parameters={}, headers={}, model=model, api_key=self._arguments["token"])
        except ValueError as error:
            raise ModelUnavailable(f"{self._name}: {reason(error, [self._token])}") from None

    def _failure(self, error: Exception) -> Refusal | Transient | ModelError:
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, TextGenerationError

        text = reason(error, [self._token])
        match error:
            case InferenceTimeoutError() | httpx2.TimeoutException():
                return Transient(f"no reply within {self._timeout:g} s")
            case HfHubHTTPError(response=response):
                said = reason(error.server_message or error, [self._token])
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Refusal(response.status_code, f"HTTP {response.status_code}: {said}", headers)
            case httpx2.TransportError():
                return Transient(f"no connection: {text}")
            case TextGenerationError():  # within a stream, where there is no status
                return Transient(f"the endpoint reports: {text}")
            case httpx2.HTTPError() | OSError() | TypeError():  # OSError: HF_HUB_OFFLINE forbids the call
                return ModelUnavailable(f"{self._name}: {text}")
            case _:  # it reads answers without looking, so any error may come of them
                return ModelReplyInvalid(f"{self._name}: the endpoint's answer cannot be read: {text}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_id!r}, base_url={self._base!r})"


def _found_token() -> str | None:
    # Otherwise the library asks the hub, blocking, for a list of agents to name in its requests.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import get_token
    except ImportError:
        raise missing_extra("InferenceClientModel", "huggingface_hub", "hf") from None
    return get_token()


def _is_of_hugging_face(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" and any(host == name or host.endswith(f".{name}") for name in _HOSTS)


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


HfApiModel = InferenceClientModel
