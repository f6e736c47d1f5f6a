"""Models behind an OpenAI-compatible ``/v1/chat/completions`` endpoint: OpenAI, vLLM, Ollama, llama.cpp, others."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import openai

from orchestrator.errors import ConfigError, ModelUnavailable
from orchestrator.models.completion import parse_completion
from orchestrator.models.model import ChatMessage, ModelReply, cut_at_stop
from orchestrator.models.retry import RetryPolicy, Transient, retry_after, with_retries

# Reasoning models that answer `stop` with an error: https://platform.openai.com/docs/api-reference/chat/create#stop
# ("not supported with latest reasoning models o3 and o4-mini"); o3-mini takes it. With or without a provider's prefix.
_REFUSES_STOP = re.compile(r"(?:^|/)(?:o3(?!-mini)|o4|gpt-5|grok-)")
_KEY_LIKE = re.compile(r"\b(?:sk|xai|gsk|hf|key)[-_][\w-]{8,}")
_MAX_REASON = 300  # characters of an endpoint's error text; some send whole HTML pages
_HEALING = frozenset({408, 409, 425, 429})  # and every 5xx


class OpenAIServerModel:
    """A model on an OpenAI-compatible server.

    Args:
        model_id: the model's name on that server.
        api_base: base URL, such as ``http://127.0.0.1:8000/v1``; default ``OPENAI_BASE_URL``, else OpenAI's.
        api_key: the key; default ``OPENAI_API_KEY`` (sent to ``api_base`` too). A server of your own may need none.
        organization: OpenAI organisation to bill.
        project: OpenAI project to bill.
        timeout: seconds for one call from sending the request to the last byte of the reply.
        retry: how often and how long to try again.
        parameters: sent along with every request, such as ``temperature=0`` or ``max_completion_tokens=4000``.

    Raises:
        ConfigError: no key, and no server that might need none.
    """

    def __init__(
        self,
        model_id: str,
        api_base: str | None = None,
        api_key: str | None = None,
        *,
        organization: str | None = None,
        project: str | None = None,
        timeout: float = 120.0,
        retry: RetryPolicy | None = None,
        **parameters: Any,
    ) -> None:
        self.model_id = model_id
        self._base = api_base or os.environ.get("OPENAI_BASE_URL") or None
        self._key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        if not self._key and self._base is None:
            raise ConfigError(f"model {model_id}: set OPENAI_API_KEY, or pass api_key= (or api_base= of a server)")
        self._organization = organization
        self._project = project
        self._timeout = timeout
        self._retry = retry or RetryPolicy()
        self._parameters = parameters
        # A client's connections belong to the loop they were opened on; `run` and `arun` use different loops.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = WeakKeyDictionary()

    async def generate(self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str] = ()) -> ModelReply:
        """The reply to ``messages``; see ``Model``."""
        request = self._request(messages, stop_sequences)
        body = await with_retries(f"model {self.model_id}", lambda: self._call(request), self._retry)
        reply = parse_completion(self.model_id, body)
        return ModelReply(cut_at_stop(reply.text, stop_sequences), reply.token_usage)

    def _request(self, messages: Sequence[ChatMessage], stop_sequences: Sequence[str]) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model_id,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            **self._parameters,
        }
        if stop_sequences and "stop" not in self._parameters and not _REFUSES_STOP.search(self.model_id.lower()):
            request["stop"] = list(stop_sequences)
        return request

    async def _call(self, request: dict[str, Any]) -> str:
        """One call: the body of the reply, unread. The raw text, because the client takes any JSON for a completion."""
        try:
            # The client's timeout is one of silence: a reply that drips byte by byte would pass it.
            async with asyncio.timeout(self._timeout):
                raw = await self._client().chat.completions.with_raw_response.create(**request)
                return str(raw.text)
        except (openai.OpenAIError, TimeoutError) as error:
            self._translate(error)

    def _client(self) -> openai.AsyncOpenAI:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = openai.AsyncOpenAI(
                api_key=self._key or "none-needed",
                base_url=self._base,
                timeout=self._timeout,
                max_retries=0,  # retry.py's work: theirs knows no budget
                organization=self._organization,
                project=self._project,
            )
        return self._clients[loop]

    def _translate(self, error: Exception) -> NoReturn:
        """Raises what the failure is called here; ``from None``, as the original holds the request, and so the key."""
        match error:
            case TimeoutError() | openai.APITimeoutError():
                raise Transient(f"no reply within {self._timeout:g} s") from None
            case openai.APIConnectionError():
                raise Transient(f"no connection: {self._shown(error.__cause__ or error)}") from None
            case openai.APIStatusError() if _may_heal(error):
                headers = {name.lower(): value for name, value in error.response.headers.items()}
                raise Transient(self._status(error), retry_after(headers)) from None
            case openai.APIStatusError():
                raise ModelUnavailable(f"model {self.model_id}: {self._status(error)}") from None
            case _:
                raise ModelUnavailable(f"model {self.model_id}: {self._shown(error)}") from None

    def _status(self, error: openai.APIStatusError) -> str:
        return f"HTTP {error.status_code}: {self._shown(error)}"

    def _shown(self, error: BaseException) -> str:
        """The error's text on one line, short, without anything that is or looks like a key."""
        text = " ".join(str(error).split()) or type(error).__name__
        if self._key:
            text = text.replace(self._key, "[key]")
        return _KEY_LIKE.sub("[key]", text)[:_MAX_REASON]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_id!r}, api_base={self._base!r})"


def _may_heal(error: openai.APIStatusError) -> bool:
    # OpenAI reports an account without credit as 429 too; waiting does not fill it.
    return (error.status_code in _HEALING or error.status_code >= 500) and error.code != "insufficient_quota"


OpenAIModel = OpenAIServerModel
