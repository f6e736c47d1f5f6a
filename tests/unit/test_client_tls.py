"""The client over TCP: always TLS, always a token, and only with a service that it has reason to trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from orchestrator_api.v1 import orchestrator_pb2 as pb

from orchestrator.client.connection import AsyncConnection
from orchestrator.errors import AccessDenied, ConfigError, ServiceUnavailable
from orchestrator.service.access import Access
from orchestrator.service.failures import Failures
from tests.unit.service_parts import MemoryTokens, certificate, run, serving

TOKEN = "cbk_" + "t" * 43


async def owner(address: str, method: str = "Get", **arguments: Any) -> str:
    """Who the service says is calling."""
    connection = AsyncConnection(address, **arguments)
    try:
        request = pb.CreateSandbox() if method == "Create" else pb.SandboxId(id="a")
        answer: pb.Sandbox = await connection.sandboxes(method, request)
        return answer.owner
    finally:
        await connection.close()


def test_a_token_over_tls_is_known_and_another_is_refused(tmp_path: Path) -> None:
    async def call() -> None:
        tokens = MemoryTokens()
        tokens.put(TOKEN, "app", "sandboxes")
        tokens.put("cbk_" + "r" * 43, "keeper", "admin")
        async with serving(tmp_path, Access(tokens), Failures()) as served:
            address = f"127.0.0.1:{served.port}"
            assert await owner(address, token=TOKEN, tls=served.root) == "app"
            assert await owner(address, token=TOKEN, tls=served.root.read_bytes()) == "app"
            assert await owner(served.socket) == "local"
            with pytest.raises(AccessDenied, match="no valid token"):
                await owner(address, token="cbk_" + "x" * 43, tls=served.root)
            with pytest.raises(AccessDenied, match="has not the scope"):
                await owner(address, "Create", token="cbk_" + "r" * 43, tls=served.root)

    run(call())


def test_a_service_that_cannot_be_trusted_is_told_nothing(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = certificate(tmp_path / "other")

    async def call() -> None:
        tokens = MemoryTokens()
        tokens.put(TOKEN, "app", "sandboxes")
        async with serving(tmp_path, Access(tokens), Failures()) as served:
            for tls in (other.chain, None):
                with pytest.raises(ServiceUnavailable):
                    await owner(f"127.0.0.1:{served.port}", token=TOKEN, tls=tls, patience=0.5)

    run(call())


@pytest.mark.parametrize("tls", [b"", b"no PEM", b"\xff", "/no/such/file", Path("/")])
def test_roots_that_are_none_are_refused_at_once(tls: Any) -> None:
    with pytest.raises(ConfigError, match="no root certificates"):
        AsyncConnection("127.0.0.1:1", token=TOKEN, tls=tls)
