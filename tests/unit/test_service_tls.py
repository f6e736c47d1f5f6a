"""The service's TCP address: never without TLS, never with a key that others can read."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from orchestrator_api.v1 import orchestrator_pb2 as pb
from orchestrator_api.v1 import orchestrator_pb2_grpc as rpc

from orchestrator.errors import ConfigError
from orchestrator.service import tls
from orchestrator.service.access import Access
from tests.unit.service_parts import MemoryTokens, bearer, certificate, run, serving, trusting

TOKEN = f"cbk_{'t' * 43}"


def refused(folder: Path, address: str, chain: str | Path, key: str | Path) -> str:
    async def test() -> None:
        tls.listen(grpc.aio.server(), address, chain, key)

    with pytest.raises(ConfigError) as caught:
        run(test())
    return str(caught.value)


def test_a_client_that_trusts_another_root_says_nothing_to_the_server(tmp_path: Path) -> None:
    (other := tmp_path / "other").mkdir()
    root = certificate(other).chain
    kept = MemoryTokens()
    kept.put(TOKEN, "app", "sandboxes")

    async def test() -> None:
        async with serving(tmp_path, Access(kept)) as served:
            async with served.remote() as channel:
                assert (await rpc.SandboxesStub(channel).Get(pb.SandboxId(), metadata=bearer(TOKEN))).owner == "app"
            stranger = grpc.aio.secure_channel(f"127.0.0.1:{served.port}", trusting(root))
            async with stranger as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await rpc.SandboxesStub(channel).Get(pb.SandboxId(), metadata=bearer(TOKEN), timeout=5)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    run(test())


def test_tcp_without_tls_is_refused_on_loopback_too(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    for chain, key in (("", ""), (files.chain, ""), ("", files.key)):
        assert "TCP is with TLS only" in refused(tmp_path, "127.0.0.1:0", chain, key)


@pytest.mark.parametrize("address", ["unix:/x", "unix-abstract:x", "vsock:1:2", "8443"])
def test_what_is_no_tcp_address_is_refused(tmp_path: Path, address: str) -> None:
    files = certificate(tmp_path)
    assert "write host:port" in refused(tmp_path, address, files.chain, files.key)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620, 0o644, 0o666])
def test_a_key_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    files = certificate(tmp_path, mode=mode)
    assert f"mode {mode:04o}); chmod 600 it" in refused(tmp_path, "127.0.0.1:0", files.chain, files.key)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_key_of_its_owner_and_a_group_is_taken(tmp_path: Path, mode: int) -> None:
    files = certificate(tmp_path, mode=mode)
    assert isinstance(tls.server_credentials(files.chain, files.key), grpc.ServerCredentials)


def test_what_cannot_be_used_is_told_before_anybody_connects(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    (other := tmp_path / "other").mkdir()
    foreign = certificate(other)
    assert "cannot be used together" in refused(tmp_path, "127.0.0.1:0", files.chain, foreign.key)
    assert "cannot be read" in refused(tmp_path, "127.0.0.1:0", tmp_path / "none", files.key)
    assert "is no file" in refused(tmp_path, "127.0.0.1:0", tmp_path, files.key)
    files.chain.write_text("no PEM")
    assert "cannot be used together" in refused(tmp_path, "127.0.0.1:0", files.chain, files.key)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "is no file" in refused(tmp_path, "127.0.0.1:0", tmp_path / "pipe", files.key)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    assert "cannot be used together" in refused(tmp_path, "127.0.0.1:0", files.chain, files.key)


def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    files = certificate(tmp_path)

    async def test() -> None:
        async with serving(tmp_path) as served:
            server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            with pytest.raises(ConfigError, match="cannot listen at"):
                tls.listen(server, f"127.0.0.1:{served.port}", files.chain, files.key)

    run(test())
