"""Models of Amazon Bedrock, over its Converse API. Needs ``pip install 'cellblock[bedrock]'``."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Collection, Generator, Mapping
from contextlib import aclosing, closing
from typing import Any

from orchestrator.errors import ConfigError, ModelError, ModelReplyInvalid, ModelUnavailable, missing_extra
from orchestrator.models.asked import Asked
from orchestrator.models.chat_format import Roles
from orchestrator.models.chat_request import REMOVE_PARAMETER
from orchestrator.models.converse import (
    ConverseEvents,
    converse_messages,
    converse_output,
    converse_tools,
    parse_converse,
)
from orchestrator.models.failures import reason
from orchestrator.models.model import ModelDelta, ModelReply
from orchestrator.models.retry import RetryPolicy, Transient
from orchestrator.models.sdk import Refusal, Request, SdkModel
from orchestrator.models.threaded import from_thread

MAX_STOPS = 4  # that Converse is told; all of them are enforced here
_CONNECT = 10.0  # seconds for a connection to AWS; a region that is not reached by then is not reached
_POOL = 32  # connections kept, for agents that run side by side
# Errors in the middle of a stream carry a name and no status of their own.
_HEALING = frozenset(
    {
        "internalServerException",
        "modelStreamErrorException",
        "modelTimeoutException",
        "serviceUnavailableException",
        "throttlingException",
    }
)
# Parameters that the API keeps inside of another, and how it names those that other models know by another name.
_INSIDE: Mapping[str, str] = {
    "max_tokens": "inferenceConfig",
    "stopSequences": "inferenceConfig",
    "temperature": "inferenceConfig",
    "toolChoice": "toolConfig",
    "top_p": "inferenceConfig",
}
_OTHER_NAMES: Mapping[str, str] = {"max_tokens": "maxTokens", "top_p": "topP"}


class AmazonBedrockModel(SdkModel):
    """A model of Amazon Bedrock.

    Credentials and region are found as always with AWS: environment (``AWS_ACCESS_KEY_ID``, ``AWS_REGION``,
    ``AWS_BEARER_TOKEN_BEDROCK``, …), the files in ``~/.aws``, or the machine's role. boto3 can only block, so each call
    has a thread of its own. A call that is cancelled is no longer waited for; its request ends by itself.

    Args:
        model_id: a model, an inference profile, or the ARN of one, such as ``us.amazon.nova-pro-v1:0``.
        client: a ``bedrock-runtime`` client of boto3 to use; its own retries and timeouts are left as they are.
        client_kwargs: for ``boto3.Session().client``, such as ``{"region_name": "us-east-1"}`` or ``endpoint_url``.
        custom_role_conversions: roles that the model does not know -> those to send in their place; for models
            without system prompts ``{"system": "user"}``.
        requests_per_minute: at most so many calls, at even intervals; default no limit.
        timeout: seconds for one call from sending the request to the last byte of the reply; in a stream, for each
            piece.
        retry: how often and how long to try again; True for the default policy, False for never.
        parameters: of Converse, such as ``inferenceConfig={"maxTokens": 4000}`` or ``guardrailConfig={…}``; also
            ``max_tokens``, ``temperature``, ``top_p`` and ``toolChoice`` (else ``{"any": {}}`` when there are tools).
            They go over what is sent by itself; ``REMOVE_PARAMETER`` as a value leaves one out.

    Raises:
        ConfigError: boto3 is missing, or it cannot make a client of these settings.
    """

    def __init__(
        self,
        model_id: str,
        client: Any = None,
        client_kwargs: Mapping[str, Any] | None = None,
        custom_role_conversions: Roles | None = None,
        *,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
        retry: RetryPolicy | bool | None = True,
        **parameters: Any,
    ) -> None:
        super().__init__(model_id, timeout, retry, requests_per_minute)
        settings = dict(client_kwargs or {})
        self._roles = custom_role_conversions
        self._parameters = parameters
        self._secrets = [settings.get(name) for name in ("aws_secret_access_key", "aws_session_token")]
        self._client = self._new_client(settings) if client is None else client

    def _request(self, asked: Asked, without: Collection[str]) -> Request:
        request: Request = {
            "modelId": self.model_id,
            **converse_messages(asked.messages, self._roles, with_tools=bool(asked.tools)),
            **(converse_tools(asked.tools) if asked.tools else {}),
            **(converse_output(asked.response_format) if asked.response_format else {}),
        }
        if asked.stop_sequences:
            request["inferenceConfig"] = {"stopSequences": list(asked.stop_sequences)[:MAX_STOPS]}
        for name in without:
            request.get(_INSIDE[name], {}).pop(name, None)
        for name, value in self._parameters.items():
            _put(request, name, value)
        if "tools" not in request.get("toolConfig", {}):  # a choice among none is refused
            request.pop("toolConfig", None)
        return request

    def _removable(self, request: Request) -> Collection[str]:
        """See ``SdkModel``. Not all models take these."""
        sent = [name for name in ("stopSequences", "toolChoice") if name in request.get(_INSIDE[name], {})]
        return [name for name in sent if not self._is_given(name)]

    def _is_given(self, name: str) -> bool:
        """Whether the user asked for it, by its name or as a part of what it is inside of."""
        around = self._parameters.get(_INSIDE[name])
        return name in self._parameters or (isinstance(around, Mapping) and name in around)

    async def _ask(self, request: Request) -> ModelReply:
        async with aclosing(from_thread(lambda: self._converse(request))) as answers:
            return parse_converse(self.model_id, await anext(answers))

    def _converse(self, request: Request) -> Generator[Any, None, None]:
        yield self._client.converse(**request)

    async def _stream(self, request: Request) -> AsyncGenerator[ModelDelta, None]:
        reading = ConverseEvents()
        async with aclosing(from_thread(lambda: self._converse_stream(request))) as events:
            async for event in events:
                if (piece := reading.delta(event)) is not None:
                    yield piece
        if not reading.complete:
            raise Transient("the stream ended in the middle of the reply")

    def _converse_stream(self, request: Request) -> Generator[Any, None, None]:
        with closing(self._client.converse_stream(**request)["stream"]) as events:
            yield from events

    def _new_client(self, settings: dict[str, Any]) -> Any:
        try:
            import boto3  # type: ignore[import-untyped]
            from botocore.config import Config  # type: ignore[import-untyped]
            from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
        except ImportError:
            raise missing_extra("AmazonBedrockModel", "boto3", "bedrock") from None
        config = Config(
            connect_timeout=min(_CONNECT, self._timeout),
            read_timeout=self._timeout,
            max_pool_connections=_POOL,
            retries={"total_max_attempts": 1},  # retry.py's work: theirs knows no budget
        )
        settings["config"] = config.merge(settings["config"]) if "config" in settings else config
        try:
            # A session of its own: boto3's default one must not be used by two threads at the same time.
            return boto3.Session().client("bedrock-runtime", **settings)
        except (BotoCoreError, ValueError, TypeError) as error:
            raise ConfigError(f"{self._name}: {reason(error, self._secrets)}") from None

    def _failure(self, error: Exception) -> Refusal | Transient | ModelError:
        from botocore import exceptions as botocore  # type: ignore[import-untyped]
        from urllib3.exceptions import HTTPError

        text = reason(error, self._secrets)
        match error:
            case botocore.ReadTimeoutError() | botocore.ConnectTimeoutError():
                return Transient(f"no reply within {self._timeout:g} s")
            case botocore.ClientError(response=response):
                answer = response.get("ResponseMetadata", {})
                heals = response.get("Error", {}).get("Code") in _HEALING
                return Refusal(answer.get("HTTPStatusCode", 0), text, answer.get("HTTPHeaders", {}), heals)
            case botocore.SSLError():  # a certificate does not become right by waiting
                return ModelUnavailable(f"{self._name}: {text}")
            case botocore.ConnectionError() | botocore.HTTPClientError() | HTTPError():
                return Transient(f"no connection: {text}")
            case botocore.BotoCoreError():
                return ModelUnavailable(f"{self._name}: {text}")
            case _:  # its parsers' errors have no common root, and wrong types of JSON make them fail anyhow
                return ModelReplyInvalid(f"{self._name}: the endpoint's answer cannot be read: {text}")


def _put(request: Request, name: str, value: Any) -> None:
    """One parameter; one with a place inside of another goes there.

    Of two structures the fields are joined, but not inside of another: ``toolChoice`` is a union, which has one field.
    """
    inside = name in _INSIDE
    into = request.setdefault(_INSIDE[name], {}) if inside else request
    name = _OTHER_NAMES.get(name, name)
    if value is REMOVE_PARAMETER:
        into.pop(name, None)
    elif not inside and isinstance(value, Mapping) and isinstance(into.get(name), dict):
        into[name] = into[name] | value
    else:
        into[name] = (
            copy.deepcopy(value) if isinstance(value, Mapping) else value
        )  # it is added to, and is the caller's


AmazonBedrockServerModel = AmazonBedrockModel
