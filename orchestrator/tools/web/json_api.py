"""Asks a service that the developer chose, over HTTPS with a key. Neither its answers nor its errors are trusted.

No message holds the request: keys stand in headers, and with some services in the URL.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

import httpx2

from orchestrator.errors import ConfigError

MAX_BYTES = 4 << 20  # of an answer: a page of results has some ten thousand
SECONDS = 20.0  # for one answer, as for a page


def find_key(service: str, given: str | None, variable: str) -> str:
    """The key that was given, else that of the environment.

    Raises:
        ConfigError: there is none.
    """
    key = given or os.environ.get(variable) or ""
    if not key:
        raise ConfigError(f"{service}: pass api_key=, or set {variable}")
    return key


async def ask(
    service: str,
    url: str,
    *,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    """The JSON object that a GET answers with, or with ``body``, a POST of that.

    Args:
        service: what messages call it.
        url: its address.
        params: of the URL.
        headers: of the request.
        body: what is sent as JSON.

    Raises:
        TimeoutError: no answer within ``SECONDS``.
        PermissionError: the service takes no request with this key.
        ConnectionError: it cannot be reached, or its answer is no JSON object.
        OSError: any other HTTP status that is no success.
    """
    method = "GET" if body is None else "POST"
    try:
        async with (
            asyncio.timeout(SECONDS),
            httpx2.AsyncClient(timeout=SECONDS) as client,
            client.stream(method, url, params=params, headers=headers, json=body) as response,
        ):
            _check_status(service, response.status_code)
            return _parsed(service, await _read(service, response))
    except (TimeoutError, httpx2.TimeoutException):
        raise TimeoutError(f"{service} did not answer within {SECONDS:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL):
        raise ConnectionError(f"{service} cannot be reached") from None


def _check_status(service: str, status: int) -> None:
    if status in (401, 403):
        raise PermissionError(f"{service} takes no request with this key (HTTP {status})")
    if not 200 <= status < 300:
        raise OSError(f"{service} answered with HTTP {status}")


async def _read(service: str, response: httpx2.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BYTES:
            raise ConnectionError(f"{service} sent more than {MAX_BYTES:,} bytes")
    return bytes(body)


def _parsed(service: str, body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ConnectionError(f"what {service} sent is no JSON object")
    return answer
